#include "providers_host/provider_host.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/files.h"
#include "base/log.h"

namespace farcall::providers {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

// A string of a module, given back to it.
class ModuleString {
 public:
  ModuleString(const farcall_provider_table* table, char* text) : table_(table), text_(text) {}
  ~ModuleString() {
    if (text_ != nullptr) table_->free_string(text_);
  }
  ModuleString(const ModuleString&) = delete;
  ModuleString& operator=(const ModuleString&) = delete;

  json parse() const {  // discarded (is_discarded()) when it is none
    return text_ == nullptr ? json(json::value_t::discarded) : json::parse(text_, nullptr, false);
  }

 private:
  const farcall_provider_table* table_;
  char* text_;
};

std::string as_text(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

class LoadedProvider final : public Provider {
 public:
  LoadedProvider(const farcall_provider_table* table, farcall_provider* provider)
      : table_(table), provider_(provider) {}
  ~LoadedProvider() override { table_->destroy(provider_); }

  Result<SubmitReply> submit(const BlockRequest& request) override {
    if (auto checked = check_request(request); !checked) return fail(checked.error());
    auto reply = call({{"op", "submit"}, {"request", request_to_json(request)}});
    if (!reply) return fail(reply.error());
    // An answer that cannot be read comes after the call: the job may exist.
    auto id = text_field(*reply, "job_id");
    if (!id) return fail(ErrorCode::kOutcomeUnknown, "{}", id.error().message);
    return SubmitReply{*id};
  }

  Result<std::vector<JobStatus>> status(const std::vector<std::string>& job_ids) override {
    if (job_ids.empty()) return std::vector<JobStatus>();
    auto reply = call({{"op", "status"}, {"job_ids", job_ids}});
    if (!reply) return fail(reply.error());
    std::map<std::string, JobStatus> known;
    if (!reply->contains("jobs") || !(*reply)["jobs"].is_array()) return malformed(*reply);
    for (const auto& item : (*reply)["jobs"]) {
      auto job = status_from_json(item);
      if (!job) return fail(job.error());
      say_once(*job);
      known[job->job_id] = std::move(*job);
    }
    std::vector<JobStatus> jobs;
    for (const auto& id : job_ids) {
      const auto found = known.find(id);
      jobs.push_back(found == known.end() ? not_listed(id) : found->second);
    }
    return jobs;
  }

  Result<std::vector<std::string>> find_by_name(const std::string& job_name) override {
    auto reply = call({{"op", "find_by_name"}, {"job_name", job_name}});
    if (!reply) return fail(reply.error());
    std::vector<std::string> ids;
    if (!reply->contains("job_ids") || !(*reply)["job_ids"].is_array()) return malformed(*reply);
    for (const auto& id : (*reply)["job_ids"]) {
      if (!id.is_string()) return malformed(*reply);
      ids.push_back(id.get<std::string>());
    }
    return ids;
  }

  Result<void> cancel(const std::vector<std::string>& job_ids) override {
    if (job_ids.empty()) return {};
    auto reply = call({{"op", "cancel"}, {"job_ids", job_ids}});
    if (!reply) return fail(reply.error());
    return {};
  }

  Result<std::string> script(const BlockRequest& request) override {
    if (auto checked = check_request(request); !checked) return fail(checked.error());
    auto reply = call({{"op", "script"}, {"request", request_to_json(request)}});
    if (!reply) return fail(reply.error());
    return text_field(*reply, "script");
  }

  Result<std::string> try_submit(const BlockRequest& request) override {
    if (auto checked = check_request(request); !checked) return fail(checked.error());
    auto reply = call({{"op", "try_submit"}, {"request", request_to_json(request)}});
    if (!reply) return fail(reply.error());
    return text_field(*reply, "text");
  }

  Discovery discover() override {
    auto reply = call({{"op", "discover"}});
    auto found = reply ? discovery_from_json(*reply) : Result<Discovery>(Discovery());
    return found ? *found : Discovery();
  }

 private:
  // The "ok" part of the answer.
  Result<json> call(const json& request) {
    const ModuleString text(table_, table_->call(provider_, as_text(request).c_str()));
    json reply = text.parse();
    if (reply.is_object()) {
      if (const auto error = reply.find("error"); error != reply.end()) {
        return fail(error_from_json(*error));
      }
      if (const auto ok = reply.find("ok"); ok != reply.end()) return std::move(*ok);
    }
    return fail(ErrorCode::kOutcomeUnknown,
                "provider {}: the answer to \"{}\" is neither \"ok\" nor \"error\"", table_->name,
                request.at("op").get<std::string>());
  }

  // A word that is not known keeps the job's last state; people hear of it the first time.
  void say_once(const JobStatus& job) {
    if (job.state != JobState::kUnknown || !job.listed || !words_said_.insert(job.word).second)
      return;
    log_warn(
        "provider {}: job {} is in state \"{}\"{}, which means nothing here: its last known "
        "state stands",
        table_->name, job.job_id, job.word, job.reason.empty() ? "" : " (" + job.reason + ")");
  }

  tl::unexpected<Error> malformed(const json& reply) const {
    return fail(ErrorCode::kCorrupt, "provider {}: cannot use its answer {}", table_->name,
                as_text(reply).substr(0, 200));
  }

  Result<std::string> text_field(const json& reply, const char* field) const {
    if (!reply.is_object() || !reply.contains(field) || !reply[field].is_string()) {
      return malformed(reply);
    }
    return reply[field].get<std::string>();
  }

  const farcall_provider_table* table_;
  farcall_provider* provider_;
  std::set<std::string> words_said_;
};

std::string joined(const std::vector<fs::path>& path) {
  std::string text;
  for (const auto& folder : path) text += (text.empty() ? "" : ":") + folder.string();
  return text;
}

}  // namespace

std::vector<fs::path> provider_path() {
  std::vector<fs::path> path;
  if (const char* text = std::getenv("FARCALL_PROVIDER_PATH"); text != nullptr) {
    std::string rest = text;
    while (!rest.empty()) {
      const auto end = rest.find(':');
      if (end != 0) path.emplace_back(rest.substr(0, end));
      rest = end == std::string::npos ? "" : rest.substr(end + 1);
    }
  }
  path.push_back((program_directory() / "../lib/farcall/providers").lexically_normal());
  return path;
}

std::string module_name(std::string_view provider_type) {
  std::string name(provider_type);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  constexpr std::string_view kSuffix = "provider";
  if (name.size() > kSuffix.size() && name.ends_with(kSuffix)) {
    name.resize(name.size() - kSuffix.size());
  }
  return name;
}

Result<ProviderModule> ProviderModule::load(const std::string& name,
                                            const std::vector<fs::path>& path) {
  const bool plain = !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '-';
  });
  if (plain) {
    for (const auto& folder : path) {
      std::error_code ignored;
      const auto file = folder / (name + ".so");
      if (fs::exists(file, ignored)) return load_file(file);
    }
  }
  std::string known;
  for (const auto& provider : list_providers(path)) {
    if (provider.problem.empty()) known += (known.empty() ? "" : ", ") + provider.name;
  }
  return fail(ErrorCode::kNotFound,
              "no provider \"{}\": there is no {}.so in {}; found: {}. Another one is added by "
              "putting its module in a folder of FARCALL_PROVIDER_PATH",
              name, name, joined(path), known.empty() ? "none" : known);
}

Result<ProviderModule> ProviderModule::load_file(const fs::path& file) {
  // NOW: a module with an undefined symbol is refused here and not in the middle of a call.
  void* handle = dlopen(fs::absolute(file).c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) {
    const char* why = dlerror();
    return fail(ErrorCode::kConfig, "provider module {}: cannot be loaded: {}", file.string(),
                why == nullptr ? "no reason given" : why);
  }
  const auto entry = reinterpret_cast<farcall_provider_entry_function>(
      dlsym(handle, FARCALL_PROVIDER_ENTRY_SYMBOL));
  if (entry == nullptr) {
    return fail(ErrorCode::kConfig,
                "provider module {}: is no provider: it does not export {}; see docs/providers.md",
                file.string(), FARCALL_PROVIDER_ENTRY_SYMBOL);
  }
  const farcall_provider_table* table = entry();
  if (table == nullptr) {
    return fail(ErrorCode::kConfig, "provider module {}: {} returned nothing", file.string(),
                FARCALL_PROVIDER_ENTRY_SYMBOL);
  }
  if (table->abi_version != FARCALL_PROVIDER_ABI_VERSION) {
    return fail(ErrorCode::kVersion,
                "provider module {}: has version {} of the provider interface, this farcall has "
                "version {}; build the module again against this farcall's providers/provider.h",
                file.string(), table->abi_version, FARCALL_PROVIDER_ABI_VERSION);
  }
  if (table->table_size < sizeof(farcall_provider_table) || table->name == nullptr ||
      table->schema == nullptr || table->create == nullptr || table->destroy == nullptr ||
      table->call == nullptr || table->free_string == nullptr) {
    return fail(ErrorCode::kConfig, "provider module {}: its table of functions is not complete",
                file.string());
  }
  ProviderModule module;
  module.name_ = table->name;
  module.version_ = table->version == nullptr ? "" : table->version;
  module.file_ = file;
  module.table_ = table;
  if (module.name_ != file.stem().string()) {
    return fail(ErrorCode::kConfig, "provider module {}: calls itself \"{}\"; name the file {}.so",
                file.string(), module.name_, module.name_);
  }
  return module;
}

Result<std::vector<ConfigKey>> ProviderModule::schema() const {
  return keys_from_json(ModuleString(table_, table_->schema()).parse());
}

Result<std::unique_ptr<Provider>> ProviderModule::create(json config,
                                                         const fs::path& directory) const {
  if (!config.is_object()) {
    return fail(ErrorCode::kConfig, "provider {}: its configuration is no mapping", name_);
  }
  config["directory"] = directory.string();
  char* error = nullptr;
  farcall_provider* provider = table_->create(as_text(config).c_str(), &error);
  const ModuleString reason(table_, error);
  if (provider == nullptr) return fail(error_from_json(reason.parse()));
  return std::make_unique<LoadedProvider>(table_, provider);
}

std::vector<AvailableProvider> list_providers(const std::vector<fs::path>& path) {
  std::map<std::string, AvailableProvider> found;
  for (const auto& folder : path) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      if (entry.path().extension() != ".so") continue;
      AvailableProvider provider;
      provider.name = entry.path().stem().string();
      provider.file = entry.path();
      if (found.contains(provider.name)) continue;
      if (const auto module = ProviderModule::load_file(entry.path()); module) {
        provider.version = module->version();
      } else {
        provider.problem = module.error().message;
      }
      found.emplace(provider.name, provider);
    }
  }
  std::vector<AvailableProvider> providers;
  for (auto& [name, provider] : found) providers.push_back(std::move(provider));
  return providers;
}

}  // namespace farcall::providers
