/* A shared library, and no provider. */
__attribute__((visibility("default"))) int answer(void);
int answer(void) { return 42; }
