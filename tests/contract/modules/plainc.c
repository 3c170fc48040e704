/* The smallest provider that is right, without a line of C++: everything it is asked is refused. */
#include <stdlib.h>
#include <string.h>

#include "providers/provider_abi.h"

static char* copy(const char* text) {
  char* made = malloc(strlen(text) + 1);
  return made ? strcpy(made, text) : NULL;
}
static char* schema(void) {
  return copy("[{\"name\": \"queue\", \"type\": \"string\", \"default\": \"batch\", \"help\": \"A queue.\"}]");
}
static farcall_provider* create(const char* config_json, char** error_json) {
  if (strstr(config_json, "\"queue\":\"none\"") != NULL) {
    *error_json = copy("{\"code\": \"config\", \"message\": \"no such queue\"}");
    return NULL;
  }
  *error_json = NULL;
  return (farcall_provider*)copy("provider");
}
static void destroy(farcall_provider* provider) { free(provider); }
static char* call(farcall_provider* provider, const char* request_json) {
  (void)provider;
  if (strstr(request_json, "\"op\":\"submit\"") != NULL) return copy("this is no JSON");
  if (strstr(request_json, "\"op\":\"status\"") != NULL) {
    return copy("{\"ok\": {\"jobs\": [{\"job_id\": \"2\", \"state\": \"running\"}]}}");
  }
  return copy("{\"error\": {\"code\": \"scheduler_refused\", \"message\": \"not today\"}}");
}
static void free_string(char* text) { free(text); }

static const farcall_provider_table table = {
    FARCALL_PROVIDER_ABI_VERSION, sizeof(farcall_provider_table), "plainc", "0.1", schema, create,
    destroy, call, free_string};

__attribute__((visibility("default"))) const farcall_provider_table* farcall_provider_entry(void);
const farcall_provider_table* farcall_provider_entry(void) { return &table; }
