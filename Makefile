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
WERROR    ?= $(if $(CI),-Werror)
FUZZ_SECONDS ?= 10
V         ?= 0
Q         := $(if $(filter 0,$(V)),@)

PKGS      := fuse3 libcurl libzip libcrypto expat sqlite3 libcjson libisal
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 \
	-DTICKFS_VERSION='"$(VERSION)"' -I. \
	-Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes \
	-Wmissing-prototypes -Wwrite-strings -Wformat=2 -Wvla $(WERROR) \
	$(shell pkg-config --cflags $(PKGS)) -pthread $(SANITIZE) $(CFLAGS)
LIBS       = $(shell pkg-config --libs $(PKGS)) -pthread

MODULES   := $(filter-out fs/main.c,$(wildcard fs/*.c fetch/*.c cache/*.c))
OBJS      := $(MODULES:%.c=$(B)/%.o)
LIB       := $(B)/libtickfs.a
UNITS     := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/test_*.c))
FUZZERS   := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
ORIGIN_SRC := $(wildcard tests/origin/*.c)
ORIGIN_LIB := $(B)/liborigin.a
ORIGIN_OBJS := $(patsubst %.c,$(B)/%.o,$(filter-out tests/origin/main.c,$(ORIGIN_SRC)))
SHIMS     := $(patsubst tests/shim/%.c,$(B)/%.so,$(wildcard tests/shim/*.c))
SUPPORT_LIB := $(B)/libsupport.a
SUPPORT_OBJS := $(patsubst %.c,$(B)/%.o,$(wildcard tests/support/*.c))

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all help tests check clean FORCE

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

$(ORIGIN_LIB): $(ORIGIN_OBJS)
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/origin: $(B)/tests/origin/main.o $(ORIGIN_LIB)
	@$(if $(Q),echo "  LD      $@")
	$(Q)$(CC) $(SANITIZE) $(CFLAGS) $(LDFLAGS) -o $@ $^ \
		$(shell pkg-config --libs libmicrohttpd libcrypto libcjson) -pthread

# A library: a test that fakes a module must not get what needs the real one.
$(SUPPORT_LIB): $(SUPPORT_OBJS)
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/tests/test_%: $(B)/tests/test_%.o $(SUPPORT_LIB) $(LIB) $(ORIGIN_LIB)
	@$(if $(Q),echo "  LD      $@")
	$(Q)$(CC) $(SANITIZE) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS) \
		$(shell pkg-config --libs cmocka libmicrohttpd) -lz

# Preloaded into the programs under test: plain C, whatever these are built as.
$(B)/%.so: tests/shim/%.c $(B)/config
	@mkdir -p $(@D)
	@$(if $(Q),echo "  LD      $@")
	$(Q)$(CC) -std=c11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Wall -Wextra \
		$(WERROR) -O2 -g -fPIC -shared -pthread -o $@ $<

tests: $(UNITS) $(SHIMS) ## build the unit tests

check: tests ## run the unit tests: no mount, quick
	@set -e; for t in $(UNITS); do timeout 300 $$t; done

clean: ## remove all that was built
	rm -rf build

-include $(shell find $(B) -name '*.d' 2>/dev/null)
