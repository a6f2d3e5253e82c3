# tickfs: see `make help`.
#
# B is the folder everything is built into; the sanitizer targets call this
# file again with a B and a SANITIZE of their own, so that no object file ever
# serves two kinds of build.

VERSION   := 0.1.0
PREFIX    ?= /usr/local
DESTDIR   ?=
B         ?= build
CC        ?= cc
CFLAGS    ?= -O2 -g
SANITIZE  ?=
RUN       ?=
WERROR    ?= $(if $(CI),-Werror)
FUZZ_SECONDS ?= 10
V         ?= 0
Q         := $(if $(filter 0,$(V)),@)

PKGS      := fuse3 inih libcurl libzip libcrypto expat sqlite3 libcjson libisal
# What pkg-config says is asked for when it is first wanted, and once.
once       = $(eval $1 := $(shell pkg-config $2))$($1)
PKG_CFLAGS = $(call once,PKG_CFLAGS,--cflags $(PKGS))
PKG_LIBS   = $(call once,PKG_LIBS,--libs $(PKGS))
ORIGIN_LIBS = $(call once,ORIGIN_LIBS,--libs libmicrohttpd libcrypto libcjson)
UNIT_LIBS  = $(call once,UNIT_LIBS,--libs cmocka libmicrohttpd)
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 \
	-DTICKFS_VERSION='"$(VERSION)"' -I. \
	-Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes \
	-Wmissing-prototypes -Wwrite-strings -Wformat=2 -Wvla $(WERROR) \
	$(PKG_CFLAGS) -pthread $(SANITIZE) $(CFLAGS)
LIBS       = $(PKG_LIBS) -pthread

MODULES   := $(filter-out fs/main.c,$(wildcard fs/*.c fetch/*.c cache/*.c))
OBJS      := $(MODULES:%.c=$(B)/%.o)
LIB       := $(B)/libtickfs.a
UNITS     := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/test_*.c))
FUZZERS   := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
ORIGIN_SRC := $(wildcard tests/origin/*.c)
ORIGIN_LIB := $(B)/liborigin.a
ORIGIN_OBJS := $(patsubst %.c,$(B)/%.o,$(filter-out tests/origin/main.c,$(ORIGIN_SRC)))
SUPPORT   := $(B)/libsupport.a
SHIMS     := $(patsubst tests/shim/%.c,$(B)/%.so,$(wildcard tests/shim/*.c))
SUPPORT_OBJS := $(patsubst %.c,$(B)/%.o,$(wildcard tests/support/*.c))

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all help tests check check-mount check-layers asan ubsan tsan \
	asan-build tsan-build fuzzers fuzz-build fuzz list-fuzzers soak \
	bench bench-quick bench-check bench-build format-check analyze install uninstall clean FORCE

all: $(if $(wildcard fs/main.c),$(B)/tickfs) ## build build/tickfs

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | \
		awk -F':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

# A change of compiler or flags rebuilds everything.
$(B)/config: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(ALL_CFLAGS) $(LDFLAGS)' | cmp -s - $@ || \
		echo '$(CC) $(ALL_CFLAGS) $(LDFLAGS)' > $@

$(B)/%.o: %.c $(B)/config
	@mkdir -p $(@D)
	@$(if $(Q),echo "  CC      $<")
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(LIB): $(OBJS)
	@$(if $(Q),echo "  AR      $@")
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/tickfs: $(B)/fs/main.o $(LIB)
	@$(if $(Q),echo "  LD      $@")
	$(Q)$(CC) $(SANITIZE) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

# An archive, so that a test links only what it uses: some replace a module.
$(SUPPORT): $(SUPPORT_OBJS)
	$(Q)rm -f $@ && ar rcs $@ $^

$(ORIGIN_LIB): $(ORIGIN_OBJS)
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/origin: $(B)/tests/origin/main.o $(ORIGIN_LIB)
	@$(if $(Q),echo "  LD      $@")
	$(Q)$(CC) $(SANITIZE) $(CFLAGS) $(LDFLAGS) -o $@ $^ \
		$(ORIGIN_LIBS) -pthread

$(B)/tests/test_%: $(B)/tests/test_%.o $(SUPPORT) $(LIB) $(ORIGIN_LIB)
	@$(if $(Q),echo "  LD      $@")
	$(Q)$(CC) $(SANITIZE) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS) \
		$(UNIT_LIBS) -lz

# What these tests let fail: sanitizers would not let calloc() be replaced, and
# no archive is known that makes the other fail.
$(B)/tests/test_folder: private LIBS += -Wl,--wrap=calloc
$(B)/tests/test_checkpoints: private LIBS += -Wl,--wrap=resume_read_header
$(B)/tests/test_checkpoints_windows: private LIBS += -Wl,--wrap=resume_drop_unused

# Preloaded into the programs under test: plain C, whatever these are built as.
$(B)/%.so: tests/shim/%.c tests/shim/fd_path.h $(B)/config
	@mkdir -p $(@D)
	@$(if $(Q),echo "  LD      $@")
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Wall -Wextra \
		$(WERROR) -O2 -g -fPIC -shared -pthread -I. -o $@ $<

tests: $(UNITS) $(SHIMS) ## build the unit tests

# RUN goes in front of each test: TSan wants `setarch -R`.
check: tests ## run the unit tests: no mount, quick
	@set -e; for t in $(UNITS); do timeout 300 $(RUN) $$t; done

check-mount: all $(B)/origin ## mount against the imitated origin and compare
	TICKFS_BUILD=$(B) python3 tests/mount/run.py

check-layers: all ## hold include order and symbol prefixes
	scripts/check-layers --self-test
	scripts/check-layers --build $(B)

# ---- sanitizers: each a build of its own ----

# They check the same at any level. Above the first, compiling takes twice as
# long and the tests no less; of debug data a report wants lines.
SANITIZED_CFLAGS ?= -O1 -g1

ASAN  := address,undefined -fno-sanitize-recover=all
UBSAN := undefined -fno-sanitize-recover=all
ASAN_MAKE  = +$(MAKE) B=build/asan SANITIZE="-fsanitize=$(ASAN)" \
	CFLAGS="$(SANITIZED_CFLAGS)"
UBSAN_MAKE = +$(MAKE) B=build/ubsan SANITIZE="-fsanitize=$(UBSAN)" \
	CFLAGS="$(SANITIZED_CFLAGS)"
# Why TZ: see scripts/test.
TSAN_MAKE  = +TZ=UTC $(MAKE) B=build/tsan SANITIZE=-fsanitize=thread \
	CFLAGS="$(SANITIZED_CFLAGS)"

asan: ## unit and mounted tests with AddressSanitizer and UBSan
	$(ASAN_MAKE) check check-mount

ubsan: ## unit and mounted tests with UBSan alone
	$(UBSAN_MAKE) check check-mount

tsan: ## unit and mounted tests with ThreadSanitizer
	$(TSAN_MAKE) RUN="setarch -R" check check-mount

asan-build:
	$(ASAN_MAKE) all tests build/asan/origin

tsan-build:
	$(TSAN_MAKE) all tests build/tsan/origin

# ---- fuzzers: clang's libFuzzer, under both sanitizers ----

FUZZ_BINS := $(FUZZERS:%=$(B)/%)
FUZZ_MAKE  = +$(MAKE) B=build/fuzz CC=clang \
	SANITIZE="-fsanitize=fuzzer-no-link,$(ASAN)"

$(B)/fuzz_%: $(B)/tests/fuzz/fuzz_%.o $(LIB)
	@$(if $(Q),echo "  LD      $@")
	$(Q)$(CC) -fsanitize=fuzzer,$(ASAN) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

fuzzers: $(FUZZ_BINS)

fuzz-build:
	$(FUZZ_MAKE) fuzzers

fuzz: fuzz-build ## each fuzzer for FUZZ_SECONDS (10)
	@for f in $(FUZZERS); do \
		FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/run-fuzzer build/fuzz $$f \
			|| exit 1; done

list-fuzzers:
	@printf '%s\n' $(FUZZERS)

# ---- the benchmark: see docs/performance.md ----

BENCH     := $(B)/bench/rows $(B)/bench/probe $(B)/bench/known
# libfuse's example, to compare with; packages carry its source.
EXAMPLES  ?= /usr/share/doc/libfuse3-dev/examples
ifneq ($(wildcard $(EXAMPLES)/passthrough_ll.c),)
BENCH     += $(B)/bench/passthrough_ll
endif

$(B)/bench/%: $(B)/tests/bench/%.o $(LIB)
	@$(if $(Q),echo "  LD      $@")
	@mkdir -p $(@D)
	$(Q)$(CC) $(SANITIZE) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

$(B)/bench/passthrough_ll: $(EXAMPLES)/passthrough_ll.c
	@$(if $(Q),echo "  LD      $@")
	@mkdir -p $(@D)
	$(Q)$(CC) -O2 -w -o $@ $< $(shell pkg-config --cflags --libs fuse3) \
		-pthread

bench-build: all $(B)/origin $(BENCH)

bench: bench-build ## compare with the tools it replaces (a quarter hour)
	TICKFS_BUILD=$(B) python3 tests/bench/run.py

bench-quick: bench-build ## the same on less, in some minutes
	TICKFS_BUILD=$(B) python3 tests/bench/run.py --quick

bench-check: bench-build ## what the benchmark reads, compared byte by byte
	TICKFS_BUILD=$(B) python3 tests/bench/run.py --check

# ---- the rest ----

soak: all $(B)/origin fuzz-build ## the long set: see scripts/soak
	scripts/soak

STYLED := $(wildcard fs/*.[ch] fs/*/*.[ch] fetch/*.[ch] cache/*.[ch] \
	tests/*.[ch] tests/*/*.[ch])

format-check: ## are all sources laid out as .clang-format says?
	clang-format --dry-run --Werror $(STYLED)

analyze: ## clang's static analyzer over the program
	@set -e; for f in $(MODULES) $(wildcard fs/main.c); do \
		clang --analyze -Xclang -analyzer-werror \
			-Xclang -analyzer-output=text $(ALL_CFLAGS) $$f; done

install: $(B)/tickfs ## into DESTDIR and PREFIX
	install -D -m 755 $(B)/tickfs $(DESTDIR)$(PREFIX)/bin/tickfs
	install -D -m 644 man/tickfs.1 \
		$(DESTDIR)$(PREFIX)/share/man/man1/tickfs.1

uninstall: ## remove what install put there
	rm -f $(DESTDIR)$(PREFIX)/bin/tickfs \
		$(DESTDIR)$(PREFIX)/share/man/man1/tickfs.1

clean: ## remove all that was built
	rm -rf build

# Only of this build: one in a folder of B may be under way, its .d files half
# written; and the benchmark mounts below bench/, looking there keeps it busy.
-include $(shell find $(addprefix $(B)/,fs fetch cache tests) -name '*.d' \
	2>/dev/null)
