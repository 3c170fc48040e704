/* Refused before any function of it is called. */
#include "providers/provider_abi.h"

static char* schema(void) { __builtin_trap(); }
static farcall_provider* create(const char* config_json, char** error_json) {
  (void)config_json;
  (void)error_json;
  __builtin_trap();
}
static void destroy(farcall_provider* provider) {
  (void)provider;
  __builtin_trap();
}
static char* call(farcall_provider* provider, const char* request_json) {
  (void)provider;
  (void)request_json;
  __builtin_trap();
}
static void free_string(char* text) {
  (void)text;
  __builtin_trap();
}
static const farcall_provider_table table = {
    99, sizeof(farcall_provider_table), "otherversion", "1", schema, create, destroy, call, free_string};

__attribute__((visibility("default"))) const farcall_provider_table* farcall_provider_entry(void);
const farcall_provider_table* farcall_provider_entry(void) { return &table; }
