#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "cache/disk.h"
#include "tests/support/scratch.h"

struct place {
	char *dir;
	int fd;
};

static int setup(void **state)
{
	struct place *p = malloc(sizeof(*p));

	p->dir = scratch_create();
	p->fd = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct place *p = *state;

	close(p->fd);
	scratch_remove(p->dir);
	free(p);
	return 0;
}

static void test_disk__makes_and_prunes_folders(void **state)
{
	struct place *p = *state;
	struct stat sb;

	assert_int_equal(disk_has_parent(p->fd, "a/b/c/file"), -ENOENT);
	assert_int_equal(disk_make_parents(p->fd, "a/b/c/file"), 0);
	assert_int_equal(disk_has_parent(p->fd, "a/b/c/file"), 0);
	assert_int_equal(disk_make_parents(p->fd, "a/b/c/file"), 0);
	assert_int_equal(fstatat(p->fd, "a/b/c", &sb, 0), 0);
	assert_int_equal(sb.st_mode & 07777, 0700);
	assert_int_equal(disk_make_parents(p->fd, "file"), 0);

	assert_int_equal(disk_write_file(p->fd, "a/other", "x", 1), 0);
	disk_prune_parents(p->fd, "a/b/c/file");
	assert_int_equal(fstatat(p->fd, "a/b", &sb, 0), -1);
	assert_int_equal(fstatat(p->fd, "a", &sb, 0), 0);
	assert_int_equal(disk_unlink(p->fd, "a/other"), 0);
	disk_prune_parents(p->fd, "a/other");
	assert_int_equal(fstatat(p->fd, "a", &sb, 0), -1);
}

static void test_disk__writes_files_whole(void **state)
{
	struct place *p = *state;
	struct stat sb;
	char *buf;
	size_t len;

	assert_int_equal(disk_write_file(p->fd, "f", "first", 5), 0);
	assert_int_equal(disk_write_file(p->fd, "f", "2nd", 3), 0);
	assert_int_equal(disk_read_file(p->fd, "f", 3, &buf, &len), 0);
	assert_int_equal(len, 3);
	assert_string_equal(buf, "2nd");
	free(buf);
	assert_int_equal(disk_read_file(p->fd, "f", 2, &buf, &len), -EFBIG);
	assert_int_equal(disk_read_file(p->fd, "g", 2, &buf, &len), -ENOENT);
	assert_int_equal(fstatat(p->fd, "f.new", &sb, 0), -1);
	assert_int_equal(fstatat(p->fd, "f", &sb, 0), 0);
	assert_int_equal(sb.st_mode & 07777, 0600);
	assert_int_equal(disk_write_file(p->fd, "no/f", "x", 1), -ENOENT);
}

static void test_disk__reads_the_whole_or_says_so(void **state)
{
	struct place *p = *state;
	char buf[8];
	int fd;

	fd = disk_open(p->fd, "f", O_RDWR | O_CREAT, 0600);
	assert_true(fd >= 0);
	assert_int_equal(disk_pwrite(fd, "abcdef", 6, 2), 0);
	assert_int_equal(disk_pread(fd, buf, 8, 0), 0);
	assert_memory_equal(buf, "\0\0abcdef", 8);
	assert_int_equal(disk_pread(fd, buf, 8, 1), -EBADMSG);
	assert_int_equal(disk_pread(fd, buf, 0, 100), 0);
	close(fd);
	assert_int_equal(disk_pread(fd, buf, 1, 0), -EBADF);
}

static void test_disk__renames_between_folders(void **state)
{
	struct place *p = *state;
	uint64_t size;
	int64_t mtime;

	assert_int_equal(disk_make_parents(p->fd, "to/x"), 0);
	assert_int_equal(disk_write_file(p->fd, "x", "12345", 5), 0);
	assert_int_equal(disk_rename(p->fd, "x", p->fd, "to/x"), 0);
	assert_int_equal(disk_size(p->fd, "to/x", &size, &mtime), 0);
	assert_int_equal(size, 5);
	assert_true(mtime > 1600000000);
	assert_int_equal(disk_size(p->fd, "x", &size, NULL), -ENOENT);
	assert_int_equal(disk_size(p->fd, "to", &size, NULL), -EINVAL);
	assert_int_equal(disk_rename(p->fd, "x", p->fd, "y"), -ENOENT);
	assert_int_equal(disk_rename(p->fd, "to/x", p->fd, "no/y"), -ENOENT);
}

static void test_disk__unlinks_what_is_not_there(void **state)
{
	struct place *p = *state;

	assert_int_equal(disk_unlink(p->fd, "no"), 0);
	assert_int_equal(disk_unlink(p->fd, "no/such/folder"), 0);
}

/* What must hold with openat2(2) and without it. */
static const char *never_leaves(const struct place *p)
{
	char *outside = scratch_create();
	char *secret = scratch_path(outside, "secret");
	const char *wrong = NULL;
	char *buf;
	size_t len;

	scratch_write(secret, "s", 1);
	if (symlinkat(outside, p->fd, "link") < 0 ||
	    symlinkat(secret, p->fd, "filelink") < 0)
		wrong = "setup";
	else if (disk_open(p->fd, "link/secret", O_RDONLY, 0) >= 0)
		wrong = "a linked folder was followed";
	else if (disk_open(p->fd, "filelink", O_RDONLY, 0) != -ELOOP)
		wrong = "a linked file was followed";
	else if (disk_read_file(p->fd, "filelink", 10, &buf, &len) == 0)
		wrong = "a linked file was read";
	else if (disk_write_file(p->fd, "link/new", "x", 1) == 0)
		wrong = "written through a link";
	else if (disk_make_parents(p->fd, "link/sub/file") == 0)
		wrong = "a folder was made through a link";
	else if (disk_open(p->fd, "../x", O_RDONLY, 0) != -EINVAL)
		wrong = ".. was followed";
	else if (disk_open(p->fd, "a/../../x", O_RDONLY, 0) >= 0)
		wrong = "a/../.. was followed";
	else if (disk_open(p->fd, secret, O_RDONLY, 0) != -EINVAL)
		wrong = "an absolute path was followed";
	else if (disk_unlink(p->fd, "..") != -EINVAL)
		wrong = ".. was unlinked";
	else if (disk_make_parents(p->fd, "deep/er/f") ||
		 disk_write_file(p->fd, "deep/er/f", "x", 1))
		wrong = "an honest path was refused";
	scratch_remove(outside);
	free(secret);
	return wrong;
}

static void test_disk__never_leaves_its_folder(void **state)
{
	const char *wrong = never_leaves(*state);

	if (wrong)
		fail_msg("%s", wrong);
}

static int without_openat2(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {
		.len = sizeof(code) / sizeof(code[0]),
		.filter = code,
	};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

static void test_disk__never_leaves_it_on_an_old_kernel(void **state)
{
	int status;
	pid_t pid;

	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		const char *wrong =
			without_openat2() ? "seccomp" : never_leaves(*state);

		if (wrong)
			fprintf(stderr, "without openat2: %s\n", wrong);
		_exit(wrong != NULL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_disk__is_not_held_up_by_a_fifo(void **state)
{
	struct place *p = *state;
	char *buf;
	size_t len;

	assert_int_equal(mkfifoat(p->fd, "fifo", 0600), 0);
	assert_int_equal(disk_read_file(p->fd, "fifo", 10, &buf, &len),
			 -EINVAL);
}

struct seen {
	unsigned int files;
	uint64_t bytes;
};

static int see(void *arg, const struct disk_file *f)
{
	struct seen *s = arg;

	s->files++;
	s->bytes += f->size;
	return strcmp(f->path, "stop") == 0 ? -ECANCELED : 0;
}

static void test_disk__walks_every_file_however_deep(void **state)
{
	struct place *p = *state;
	struct disk_walk *w;
	struct seen seen = {0};
	char path[1200] = "";
	int rc;

	for (int i = 0; i < 500; i++)
		strcat(path, "d/");
	strcat(path, "bottom");
	assert_int_equal(disk_make_parents(p->fd, path), 0);
	assert_int_equal(disk_write_file(p->fd, path, "1234", 4), 0);
	assert_int_equal(disk_write_file(p->fd, "top", "12", 2), 0);
	assert_int_equal(symlinkat("top", p->fd, "link"), 0);
	assert_int_equal(disk_walk_create(&w, p->fd), 0);
	while ((rc = disk_walk_step(w, see, &seen)) > 0)
		;
	assert_int_equal(rc, 0);
	disk_walk_free(w);
	assert_int_equal(seen.files, 2);
	assert_int_equal(seen.bytes, 6);
}

static void test_disk__walk_is_stopped_by_its_callback(void **state)
{
	struct place *p = *state;
	struct seen seen = {0};
	struct disk_walk *w;

	assert_int_equal(disk_write_file(p->fd, "stop", "", 0), 0);
	assert_int_equal(disk_walk_create(&w, p->fd), 0);
	assert_int_equal(disk_walk_step(w, see, &seen), -ECANCELED);
	disk_walk_free(w);
	disk_walk_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_disk__makes_and_prunes_folders),
		TEST(test_disk__writes_files_whole),
		TEST(test_disk__reads_the_whole_or_says_so),
		TEST(test_disk__renames_between_folders),
		TEST(test_disk__unlinks_what_is_not_there),
		TEST(test_disk__never_leaves_its_folder),
		TEST(test_disk__never_leaves_it_on_an_old_kernel),
		TEST(test_disk__is_not_held_up_by_a_fifo),
		TEST(test_disk__walks_every_file_however_deep),
		TEST(test_disk__walk_is_stopped_by_its_callback),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
