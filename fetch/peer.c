#include "fetch/peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

struct net4 {
	uint32_t base;
	unsigned int bits;
};

static const struct net4 special4[] = {
	{0x00000000, 8},  /* 0.0.0.0/8: this network */
	{0x0a000000, 8},  /* 10.0.0.0/8: private */
	{0x64400000, 10}, /* 100.64.0.0/10: shared by carriers */
	{0x7f000000, 8},  /* 127.0.0.0/8: loopback */
	{0xa9fe0000, 16}, /* 169.254.0.0/16: link-local, cloud metadata */
	{0xac100000, 12}, /* 172.16.0.0/12: private */
	{0xc0000000, 24}, /* 192.0.0.0/24: protocol assignments */
	{0xc0a80000, 16}, /* 192.168.0.0/16: private */
	{0xc6120000, 15}, /* 198.18.0.0/15: benchmarking */
	{0xe0000000, 3},  /* 224.0.0.0/3: multicast, reserved, broadcast */
};

static bool private4(uint32_t addr)
{
	for (size_t i = 0; i < sizeof(special4) / sizeof(*special4); i++) {
		uint32_t mask = UINT32_MAX << (32 - special4[i].bits);

		if ((addr & mask) == special4[i].base)
			return true;
	}
	return false;
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 |
	       (uint32_t)p[2] << 8 | p[3];
}

static bool private6(const struct in6_addr *addr)
{
	static const uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b};
	const uint8_t *a = addr->s6_addr;

	if (IN6_IS_ADDR_V4MAPPED(addr) || memcmp(a, nat64, sizeof(nat64)) == 0)
		return private4(be32(a + 12));
	if (a[0] == 0x20 && a[1] == 0x02)
		return private4(be32(a + 2));
	/* Of the rest only 2000::/3 is given out as global unicast. */
	return (a[0] & 0xe0) != 0x20;
}

bool peer_is_private(const struct sockaddr *sa)
{
	struct sockaddr_in6 in6;
	struct sockaddr_in in;

	switch (sa->sa_family) {
	case AF_INET:
		memcpy(&in, sa, sizeof(in));
		return private4(ntohl(in.sin_addr.s_addr));
	case AF_INET6:
		memcpy(&in6, sa, sizeof(in6));
		return private6(&in6.sin6_addr);
	default:
		return true;
	}
}

static bool is_localhost(const char *host, size_t len)
{
	static const char name[] = "localhost";
	const size_t name_len = sizeof(name) - 1;

	if (len > 0 && host[len - 1] == '.')
		len--;
	if (len < name_len ||
	    strncasecmp(host + len - name_len, name, name_len) != 0)
		return false;
	return len == name_len || host[len - name_len - 1] == '.';
}

bool peer_host_is_private(const char *host)
{
	size_t len = strlen(host);
	char text[INET6_ADDRSTRLEN];
	struct in6_addr in6;
	struct in_addr in;

	if (is_localhost(host, len))
		return true;
	if (len >= 2 && host[0] == '[' && host[len - 1] == ']') {
		host++;
		len -= 2;
	}
	/* The zone of fe80::1%eth0 says nothing of the address. */
	len = strcspn(host, "%") < len ? strcspn(host, "%") : len;
	if (len >= sizeof(text))
		return false;
	snprintf(text, sizeof(text), "%.*s", (int)len, host);
	if (inet_pton(AF_INET, text, &in) == 1)
		return private4(ntohl(in.s_addr));
	if (inet_pton(AF_INET6, text, &in6) == 1)
		return private6(&in6);
	return false;
}
