/* `cksum` as POSIX has it, which Debian's busybox lacks: the contract suite tells by it that a value arrived byte for byte. */
#include <stdint.h>
#include <stdio.h>

static uint32_t feed(uint32_t crc, uint32_t byte) {
    crc ^= byte << 24;
    for (int bit = 0; bit < 8; bit++) crc = (crc << 1) ^ (crc >> 31 ? 0x04c11db7u : 0);
    return crc;
}

int main(void) {
    uint32_t crc = 0;
    unsigned long length = 0;
    for (int byte; (byte = getchar()) != EOF; length++) crc = feed(crc, (uint32_t)byte);
    for (unsigned long rest = length; rest; rest >>= 8) crc = feed(crc, rest & 0xff);
    printf("%u %lu\n", (unsigned)~crc, length);
    return 0;
}
