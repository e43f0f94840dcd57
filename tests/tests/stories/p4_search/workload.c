/* What the search's workload does: it plays a script, piece by piece. Static, so that it runs in any container.
 *
 * A script is a sequence of records: kind (one byte), length (four bytes, little endian), content. All of it is XOR 0xA5, so that
 * the file itself holds nothing that is searched for.
 *
 *   0  write this
 *   1  write this, and go on when the reader has taken it: what follows is another read
 *   2  two paths, each ended by NUL: make the first, wait for the second
 *   3  name and value of a variable, each ended by NUL: end with 9 unless it has that value
 */
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROOM = 16 << 10 };
static unsigned char pending[ROOM];
static size_t held;

static void flush(void) {
  for (size_t done = 0; done < held;) {
    ssize_t written = write(1, pending + done, held - done);
    if (written < 0) exit(8);
    done += (size_t)written;
  }
  held = 0;
}

static void put(const unsigned char *bytes, size_t length) {
  while (length > 0) {
    size_t part = ROOM - held < length ? ROOM - held : length;
    memcpy(pending + held, bytes, part);
    held += part, bytes += part, length -= part;
    if (held == ROOM) flush();
  }
}

static void until_taken(void) {
  int left = 0;
  flush();
  while (ioctl(1, FIONREAD, &left) == 0 && left > 0) sched_yield();
}

static void gate(const char *reached, const char *go) {
  flush();
  close(open(reached, O_CREAT | O_WRONLY, 0644));
  while (access(go, F_OK) != 0) usleep(20000);
}

static void check(const char *name, const char *value) {
  const char *given = getenv(name);
  if (given != NULL && strcmp(given, value) == 0) return;
  flush();
  fprintf(stderr, "`%s` has another value\n", name);
  exit(9);
}

int main(int count, char **arguments) {
  if (count != 3) return 2;
  int file = open(arguments[1], O_RDONLY);
  struct stat about;
  if (file < 0 || fstat(file, &about) != 0) return 3;
  size_t size = (size_t)about.st_size;
  unsigned char *script = malloc(size);
  for (size_t done = 0; done < size;) {
    ssize_t got = read(file, script + done, size - done);
    if (got <= 0) return 3;
    done += (size_t)got;
  }
  for (size_t at = 0; at < size; at++) script[at] ^= 0xA5;
  for (size_t at = 0; at + 5 <= size;) {
    unsigned char kind = script[at], *content = script + at + 5;
    uint32_t length;
    memcpy(&length, script + at + 1, sizeof length);
    if (length > size - at - 5) return 4;
    const char *first = (const char *)content;
    switch (kind) {
      case 0: put(content, length); break;
      case 1: put(content, length); until_taken(); break;
      case 2: gate(first, first + strlen(first) + 1); break;
      case 3: check(first, first + strlen(first) + 1); break;
      default: return 5;
    }
    at += 5 + length;
  }
  flush();
  return atoi(arguments[2]);
}
