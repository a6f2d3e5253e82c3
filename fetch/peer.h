/*
 * peer - which addresses are not of the public internet. Pure.
 *
 * An archive on the internet has no business redirecting us to a machine in
 * our own network: what answers there may act on a mere GET.
 */
#ifndef FETCH_PEER_H
#define FETCH_PEER_H

#include <stdbool.h>

struct sockaddr;

/*
 * True for loopback, link-local, private, shared, benchmarking, multicast and
 * reserved addresses (the IANA special-purpose registries, RFC 6890), also
 * where IPv6 merely wraps such an IPv4 address (mapped, NAT64, 6to4), and for
 * every address family but these two.
 */
bool peer_is_private(const struct sockaddr *sa);

/*
 * The same for a host as it stands in a URL: a literal address, with or
 * without brackets, or localhost and the names below it. Other names give
 * false: only their addresses can tell.
 */
bool peer_host_is_private(const char *host);

#endif
