/* The only file of the image hybrid-runner-test/scratch: says what it was given, and ends. */
#define _GNU_SOURCE /* environ */
#include <stdio.h>
#include <unistd.h>

int main(int count, char **arguments) {
    printf("user: %d:%d\n", (int)getuid(), (int)getgid());
    for (int i = 0; i < count; i++) printf("argument: %s\n", arguments[i]);
    for (char **variable = environ; *variable; variable++) printf("environment: %s\n", *variable);
    return 0;
}
