#include "tests/support/cmocka_all.h"

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "fetch/peer.h"

/* The IANA special-purpose address registries: edges of each block. */
static void test_peer__knows_private_addresses(void **state)
{
	static const char *const hosts[] = {
		"0.0.0.0",
		"10.0.0.0",
		"10.255.255.255",
		"100.64.0.0",
		"100.127.255.255",
		"127.0.0.1",
		"127.255.255.255",
		"169.254.169.254",
		"172.16.0.0",
		"172.31.255.255",
		"192.0.0.1",
		"192.168.0.1",
		"192.168.255.255",
		"198.18.0.1",
		"198.19.255.255",
		"224.0.0.1",
		"240.0.0.1",
		"255.255.255.255",
		"::",
		"::1",
		"fc00::1",
		"fdff::1",
		"fe80::1",
		"[fe80::1%25eth0]",
		"[::1]",
		"fec0::1",
		"ff02::1",
		"::ffff:127.0.0.1",
		"::ffff:10.1.2.3",
		"64:ff9b::7f00:1",
		"2002:7f00:1::1",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(hosts) / sizeof(*hosts); i++) {
		if (!peer_host_is_private(hosts[i]))
			fail_msg("%s", hosts[i]);
	}
}

static void test_peer__knows_public_addresses(void **state)
{
	static const char *const hosts[] = {
		"1.1.1.1",	   "9.255.255.255",   "11.0.0.0",
		"100.63.255.255",  "100.128.0.0",     "126.255.255.255",
		"128.0.0.0",	   "169.253.255.255", "169.255.0.0",
		"172.15.255.255",  "172.32.0.0",      "192.167.255.255",
		"192.169.0.0",	   "198.17.255.255",  "198.20.0.0",
		"203.0.113.1",	   "223.255.255.255", "2606:4700::1111",
		"[2606:4700::1]",  "::ffff:8.8.8.8",  "64:ff9b::808:808",
		"2002:808:808::1",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(hosts) / sizeof(*hosts); i++) {
		if (peer_host_is_private(hosts[i]))
			fail_msg("%s", hosts[i]);
	}
}

static void test_peer__knows_localhost_by_name_and_no_other_name(void **state)
{
	(void)state;
	assert_true(peer_host_is_private("localhost"));
	assert_true(peer_host_is_private("LocalHost."));
	assert_true(peer_host_is_private("db.localhost"));
	assert_false(peer_host_is_private("notlocalhost"));
	assert_false(peer_host_is_private("localhost.example"));
	assert_false(peer_host_is_private("data.binance.vision"));
	assert_false(peer_host_is_private(""));
}

static void test_peer__counts_other_families_as_private(void **state)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	(void)state;
	assert_true(peer_is_private((struct sockaddr *)&un));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_peer__knows_private_addresses),
		cmocka_unit_test(test_peer__knows_public_addresses),
		cmocka_unit_test(
			test_peer__knows_localhost_by_name_and_no_other_name),
		cmocka_unit_test(test_peer__counts_other_families_as_private),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
