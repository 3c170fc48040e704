#include "interchange/config/config.h"

#include <algorithm>

#include "base/files.h"

namespace farcall::interchange {

namespace {

using nlohmann::json;

ConfigKey ignored(const std::string& name, const std::string& help = "") {
  return {.name = name, .ignored = true, .help = help};
}

// What runs on a node.
std::vector<ConfigKey> node_keys() {
  return {
      {.name = "type",
       .default_value = "GlobusComputeEngine",
       .choices = {"GlobusComputeEngine", "GlobusMPIEngine", "FarcallEngine",
                   "HighThroughputEngine", "ThreadPoolEngine", "ProcessPoolEngine"},
       .help = "Accepted for scripts and configs that come from Globus Compute; all are the same "
               "here."},
      {.name = "provider",
       .type = KeyType::kMap,
       .required = true,
       .help = "Who gives nodes: `type: SlurmProvider`, `PBSProProvider` or `LocalProvider`, and "
               "its keys."},
      {.name = "max_workers_per_node",
       .type = KeyType::kInteger,
       .unit = "tasks",
       .minimum = 1,
       .maximum = 100000,
       .help = "Tasks of one core that run on a node at once; default: its cores divided by "
               "cores_per_worker."},
      {.name = "cores_per_worker",
       .type = KeyType::kInteger,
       .default_value = 1,
       .unit = "cores",
       .minimum = 1,
       .maximum = 100000,
       .help = "Divides the cores of a node when max_workers_per_node is not given."},
      {.name = "prefetch_capacity",
       .type = KeyType::kInteger,
       .unit = "tasks",
       .minimum = 0,
       .maximum = 1000000,
       .help =
           "Tasks that wait on a node beyond those that run; default: as many as run, more of a "
           "short function, none until it is known how long a function takes."},
      {.name = "heartbeat_period",
       .type = KeyType::kDuration,
       .default_value = 5.0,
       .unit = "s",
       .minimum = 1,
       .maximum = 3600,
       .help = "How often a pilot reports."},
      {.name = "heartbeat_threshold",
       .type = KeyType::kDuration,
       .default_value = 60.0,
       .unit = "s",
       .minimum = 2,
       .maximum = 86400,
       .help = "Silence after which a pilot is lost and its tasks run elsewhere."},
      {.name = "orphan_timeout",
       .type = KeyType::kDuration,
       .default_value = 600.0,
       .unit = "s",
       .minimum = 1,
       .help = "How long a pilot that hears nobody keeps results before it ends itself."},
      {.name = "available_accelerators",
       .type = KeyType::kStringList,
       .help = "GPUs of a node: their names as CUDA_VISIBLE_DEVICES has them, or how many; default "
               "(and `auto`): those that are found there. A task says how many it needs."},
      {.name = "cpu_affinity",
       .default_value = "none",
       .help = "Processors that the tasks of one core on a node are bound to: `none`, `block` "
               "(neighbours), `block-reverse`, `alternating`, or a list for each worker, "
               "`list:0-3:4-7`. Where it does not fit a node, nothing is bound there and the pilot "
               "says so."},
      {.name = "mpi_pool_ranks_per_node",
       .type = KeyType::kInteger,
       .default_value = 0,
       .unit = "ranks",
       .minimum = 0,
       .maximum = 100000,
       .help = "Warm ranks that a pool of MPI functions has at least on each of its nodes, so that "
               "several tasks share it; 0: as many as the task that starts it has there."},
  };
}

// How pilots reach the interchange, and what they start.
std::vector<ConfigKey> pilot_keys() {
  return {
      {.name = "address",
       .type = KeyType::kMap,
       .help = "Host name, address, interface or list of them that pilots dial, one after the "
               "other; address_by_hostname is this host's name, address_by_route the address of "
               "its default route; default: every address of this host. Globus Compute's {type: "
               "address_by_interface, ifname: ib0} is understood."},
      {.name = "worker_port",
       .type = KeyType::kInteger,
       .minimum = 1,
       .maximum = 65535,
       .help = "Port that pilots dial; default: any free one."},
      {.name = "worker_port_range",
       .type = KeyType::kStringList,
       .help = "First and last port to look for a free one in, as [54000, 55000]."},
      {.name = "max_idletime",
       .type = KeyType::kDuration,
       .default_value = 120.0,
       .unit = "s",
       .minimum = 0,
       .help = "A block that had nothing to do for so long is given back."},
      {.name = "python",
       .default_value = "/usr/bin/python3",
       .help = "Interpreter of Python functions, found on PATH after worker_init."},
      {.name = "preload",
       .type = KeyType::kStringList,
       .help = "Python modules that a node imports once and its workers share, such as [numpy]."},
      {.name = "worker_recycle_after",
       .type = KeyType::kInteger,
       .default_value = 0,
       .unit = "tasks",
       .minimum = 0,
       .maximum = 1000000000,
       .help = "A worker is replaced by a fresh one after so many tasks; 0: never."},
      {.name = "max_processes",
       .type = KeyType::kInteger,
       .default_value = 2000,
       .unit = "processes",
       .minimum = 1,
       .maximum = 1000000,
       .help = "Processes that one task may have at once on a node unless it asks for another "
               "number; with more it is killed."},
      {.name = "working_dir",
       .default_value = "",
       .help = "Where sandboxes of tasks are made. For tasks over several nodes all nodes have to "
               "see it."},
      {.name = "window_tasks",
       .type = KeyType::kInteger,
       .default_value = 100000,
       .unit = "tasks",
       .minimum = 1,
       .help = "Tasks taken from the relay and not finished; the rest waits there."},
      {.name = "window_mib",
       .type = KeyType::kInteger,
       .default_value = 256,
       .unit = "MiB",
       .minimum = 1,
       .help = "Their arguments."},
      ignored("label"),
      ignored("encrypted", "every connection is encrypted"),
  };
}

// When nodes are asked for.
std::vector<ConfigKey> block_keys() {
  return {
      {.name = "strategy",
       .default_value = "auto",
       .choices = {"auto", "none", "simple", "htex_auto_scale"},
       .help = "How blocks are scaled: `auto` counts cores and gives back what is not needed, the "
               "emptiest block first; `simple`, `htex_auto_scale` and `none` are Parsl's."},
      {.name = "job_status_kwargs",
       .type = KeyType::kMap,
       .help = "Globus Compute's place for max_idletime.",
       .keys = {{.name = "max_idletime", .type = KeyType::kDuration, .unit = "s", .minimum = 0},
                ignored("strategy_period")}},
      {.name = "core_hours_max",
       .type = KeyType::kNumber,
       .default_value = 0,
       .unit = "core-hours",
       .minimum = 0,
       .help = "No block is submitted that could take all blocks of this endpoint together beyond "
               "it; 0: no limit. Nodes count with the provider's cores_per_node, else with the "
               "cores that pilots report."},
      {.name = "scheduler_interval",
       .type = KeyType::kDuration,
       .default_value = 30.0,
       .unit = "s",
       .minimum = 1,
       .maximum = 3600,
       .help =
           "Between two queries of the scheduler (one for all jobs) while all pilots call home; "
           "sooner after a change, later when it does not answer."},
      {.name = "lookup_grace",
       .type = KeyType::kDuration,
       .default_value = 60.0,
       .unit = "s",
       .minimum = 1,
       .maximum = 86400,
       .help = "How long a job is looked for by its name when the outcome of submitting it is not "
               "known; then another one is submitted, and this one cancelled if it ever shows up."},
  };
}

// Of Globus Compute's engines.
std::vector<ConfigKey> meaningless_keys() {
  return {
      ignored("run_in_sandbox", "asked for per task"),
      ignored("allowed_serializers"),
      ignored("loopback_address"),
      ignored("interchange_port_range"),
      ignored("worker_debug", "use log_level"),
      ignored("mem_per_worker"),
      ignored("drain_period"),
      ignored("poll_period"),
      ignored("address_probe_timeout"),
      ignored("worker_logdir_root"),
      ignored("launch_cmd"),
      ignored("interchange_launch_cmd"),
      ignored("block_error_handler"),
      ignored("manager_selector"),
      ignored("max_retries_on_system_failure", "budgets are per task and class of failure"),
      ignored("executor"),
      ignored("max_workers", "use max_workers_per_node"),
      ignored("max_tasks_per_child"),
      ignored("container_type"),
      ignored("container_uri"),
      ignored("container_cmd_options"),
      ignored("mpi_launcher", "mpirun starts all ranks, on Slurm and PBS too: docs/mpi.md"),
      ignored("max_workers_per_block"),
  };
}

std::vector<ConfigKey> engine_keys() {
  std::vector<ConfigKey> keys = node_keys();
  for (const auto& more : {pilot_keys(), block_keys(), meaningless_keys()})
    keys.insert(keys.end(), more.begin(), more.end());
  return keys;
}

std::vector<ConfigKey> top_keys() {
  return {
      {.name = "engine",
       .type = KeyType::kMap,
       .required = true,
       .help = "How tasks are run.",
       .keys = engine_keys()},
      {.name = "display_name", .default_value = "", .help = "Shown beside the endpoint's name."},
      {.name = "log_level",
       .default_value = "info",
       .choices = {"trace", "debug", "info", "warn", "error"},
       .help = "Of the interchange and its pilots."},
      {.name = "staging",
       .type = KeyType::kMap,
       .help = "Large results.",
       .keys = {{.name = "directory",
                 .default_value = "",
                 .help = "Where workers leave results above 1 MiB until somebody wants them; a "
                         "directory that all nodes see, in which a private folder with the "
                         "endpoint's name is made. Default: results/ in the endpoint's own."},
                {.name = "compression",
                 .type = KeyType::kInteger,
                 .default_value = 0,
                 .minimum = 0,
                 .maximum = 9,
                 .help = "gzip's level for the datasets of large results. 0: not compressed."},
                {.name = "result_ttl",
                 .type = KeyType::kDuration,
                 .default_value = 2592000.0,
                 .unit = "s",
                 .minimum = 60,
                 .maximum = 1e10,
                 .help = "They are removed so long after they were written."}}},
      {.name = "blob_cache_mib",
       .type = KeyType::kInteger,
       .default_value = 51200,
       .unit = "MiB",
       .minimum = 0,
       .maximum = 1LL << 40,
       .help =
           "Large arguments and functions are kept in the endpoint's directory up to so much, "
           "the least recently used go first; what tasks here need may exceed it. 0: no limit."},
      ignored("heartbeat_period"),
      ignored("heartbeat_threshold"),
      ignored("idle_heartbeats_soft"),
      ignored("idle_heartbeats_hard"),
      ignored("email"),
      ignored("audit_log_path"),
      ignored("identity_mapping_config_path"),
      ignored("user_config_template_path", "give the rendered template"),
      ignored("user_config_schema_path"),
      ignored("pam"),
      ignored("mu_child_ep_grace_period_s"),
      ignored("endpoint_setup"),
      ignored("endpoint_teardown"),
      ignored("log_dir"),
      ignored("stdout"),
      ignored("stderr"),
      ignored("debug", "use log_level"),
      ignored("environment"),
      ignored("multi_user"),
      ignored("public"),
      ignored("allowed_functions"),
      ignored("amqp_port"),
      ignored("local_compute_services"),
      ignored("high_assurance"),
      ignored("authentication_policy"),
      ignored("subscription_id"),
      ignored("admins"),
      ignored("detach_endpoint"),
  };
}

Duration seconds_of(const json& value) {
  return Duration(static_cast<Duration::rep>(value.get<double>() * 1e9));
}

Strategy strategy_of(const std::string& name) {
  if (name == "none") return Strategy::kNone;
  if (name == "simple") return Strategy::kSimple;
  return name == "htex_auto_scale" ? Strategy::kHtexAutoScale : Strategy::kAuto;
}

// What `address` says in any of its forms; nothing when it makes no sense.
std::optional<std::vector<std::string>> addresses_of(const json& value) {
  std::vector<std::string> result;
  if (value.is_string()) {
    result.push_back(value.get<std::string>());
  } else if (value.is_array()) {
    for (const json& item : value) {
      if (!item.is_string()) return std::nullopt;
      result.push_back(item.get<std::string>());
    }
  } else if (value.is_object()) {
    const std::string type = value.value("type", "");
    if (type == "address_by_interface" && value.contains("ifname") && value["ifname"].is_string())
      result.push_back(value["ifname"].get<std::string>());
    else if (type == "address_by_hostname" || type == "address_by_route")
      result.push_back(type);
    else if (type != "address_by_query")  // of a web service: every address is tried instead
      return std::nullopt;
  } else if (!value.is_null()) {
    return std::nullopt;
  }
  return result;
}

class Parser {
 public:
  Parser(const std::string& file_name, const ProviderSchema& schema)
      : file_(file_name), schema_(schema) {}

  Result<EndpointConfig> parse(const std::string& text) {
    auto root = parse_yaml(text, file_);
    if (!root) return fail(root.error());
    json values;
    check_config_part(*root, top_keys(), "", values, problems_, warnings_);
    const YamlNode* engine = root->find("engine");
    const YamlNode* provider = engine != nullptr ? engine->find("provider") : nullptr;
    if (engine != nullptr) place_ = engine;
    if (provider != nullptr) check_provider(*provider);
    const YamlNode* gpus = engine != nullptr ? engine->find("available_accelerators") : nullptr;
    lists_accelerators_ = gpus != nullptr && gpus->kind == YamlNode::Kind::kSequence;
    if (!problems_.empty()) return fail(config_error(file_, problems_));
    take(values);
    for (const ConfigProblem& warning : warnings_)
      config_.warnings.push_back(
          fmt::format("{}:{}:{}: {}", file_, warning.line, warning.column, warning.text));
    if (!problems_.empty()) return fail(config_error(file_, problems_));
    return config_;
  }

 private:
  void check_provider(const YamlNode& node) {
    const YamlNode* type = node.find("type");
    if (type == nullptr || type->kind != YamlNode::Kind::kScalar) {
      if (node.kind == YamlNode::Kind::kMapping)
        problems_.push_back({node.line, node.column,
                             "the key 'engine.provider.type' is missing: SlurmProvider, "
                             "PBSProProvider or LocalProvider"});
      return;
    }
    auto keys = schema_(type->scalar);
    if (!keys) {
      problems_.push_back(
          {type->line, type->column,
           fmt::format("'engine.provider.type' is '{}': {}", type->scalar, keys.error().message)});
      return;
    }
    keys->push_back({.name = "type", .help = "Which provider."});
    check_config_part(node, *keys, "engine.provider", config_.provider, problems_, warnings_);
    config_.provider_type = type->scalar;
    config_.provider.erase("type");
    place_ = &node;
  }

  void take(const json& values) {
    const json& engine = values.at("engine");
    Settings& s = config_.settings;
    config_.display_name = values.at("display_name").get<std::string>();
    config_.staging_directory = values.at("staging").at("directory").get<std::string>();
    config_.staging_compression = values.at("staging").at("compression").get<int>();
    config_.result_ttl = seconds_of(values.at("staging").at("result_ttl"));
    s.blob_cache_bytes = values.at("blob_cache_mib").get<std::uint64_t>() << 20;
    config_.log_level = values.at("log_level").get<std::string>();
    config_.python = engine.at("python").get<std::string>();
    for (const json& module : engine.at("preload"))
      if (module.is_string()) config_.preload.push_back(module.get<std::string>());
    config_.worker_recycle_after = engine.at("worker_recycle_after").get<std::uint32_t>();
    take_affinity(engine.at("cpu_affinity").get<std::string>());
    config_.mpi_pool_ranks_per_node = engine.at("mpi_pool_ranks_per_node").get<std::uint32_t>();
    config_.max_processes = engine.at("max_processes").get<std::uint32_t>();
    config_.working_dir = engine.at("working_dir").get<std::string>();
    if (auto addresses = addresses_of(engine.at("address")))
      config_.addresses = std::move(*addresses);
    else
      problem("'engine.address' is " + engine.at("address").dump() +
              ", expected a name, an address, an interface, a list of them, or {type: "
              "address_by_interface, ifname: …}, address_by_hostname, address_by_route");
    take_accelerators(engine.at("available_accelerators"));
    config_.orphan_timeout = seconds_of(engine.at("orphan_timeout"));
    if (engine.at("max_workers_per_node").is_number())
      s.slots_per_node = engine.at("max_workers_per_node").get<std::uint32_t>();
    s.cores_per_worker = engine.at("cores_per_worker").get<std::uint32_t>();
    if (engine.at("prefetch_capacity").is_number())
      s.prefetch = engine.at("prefetch_capacity").get<std::int64_t>();
    s.heartbeat = seconds_of(engine.at("heartbeat_period"));
    s.lost_timeout = seconds_of(engine.at("heartbeat_threshold"));
    s.window_tasks = engine.at("window_tasks").get<std::uint64_t>();
    s.window_bytes = engine.at("window_mib").get<std::uint64_t>() << 20;
    s.scheduler_is_local =
        config_.provider_type == "LocalProvider" || config_.provider_type == "local";
    s.scaling.max_idletime = seconds_of(engine.at("max_idletime"));
    const json& kwargs = engine.at("job_status_kwargs");
    if (kwargs.is_object() && kwargs.contains("max_idletime") && kwargs["max_idletime"].is_number())
      s.scaling.max_idletime = seconds_of(kwargs["max_idletime"]);
    s.scaling.strategy = strategy_of(engine.at("strategy").get<std::string>());
    s.scaling.core_hours_max = engine.at("core_hours_max").get<double>();
    s.scheduler_interval = seconds_of(engine.at("scheduler_interval"));
    s.lookup_grace = seconds_of(engine.at("lookup_grace"));
    take_ports(engine);
    take_scaling(s.scaling);
  }

  void take_accelerators(const json& value) {
    if (!value.is_array()) return;
    const auto names = value.get<std::vector<std::string>>();
    if (names.empty() || names == std::vector<std::string>{"auto"}) return;
    config_.detect_accelerators = false;
    const bool is_count = !lists_accelerators_ && names[0].size() <= 3 &&
                          names[0].find_first_not_of("0123456789") == std::string::npos;
    if (!is_count) {
      config_.accelerators = names;
      return;
    }
    for (int i = 0; i < std::atoi(names[0].c_str()); ++i)
      config_.accelerators.push_back(std::to_string(i));
  }

  void take_affinity(const std::string& pattern) {
    const bool listed = pattern.starts_with("list:") && pattern.size() > 5 &&
                        pattern.find_first_not_of("0123456789,-:", 5) == std::string::npos;
    if (!listed && pattern != "none" && pattern != "block" && pattern != "block-reverse" &&
        pattern != "alternating")
      problem("'engine.cpu_affinity' is '" + pattern +
              "', expected none, block, block-reverse, alternating, or processors for each worker "
              "as in list:0-3:4-7");
    config_.cpu_affinity = pattern;
  }

  void take_ports(const json& engine) {
    if (engine.at("worker_port").is_number()) {
      config_.port_first = config_.port_last = engine.at("worker_port").get<int>();
    } else if (const json& range = engine.at("worker_port_range"); range.is_array()) {
      const auto port = [&](std::size_t i) {
        return i < range.size() ? std::atoi(range[i].get<std::string>().c_str()) : 0;
      };
      config_.port_first = port(0);
      config_.port_last = port(1);
      if (range.size() != 2 || port(0) < 1 || port(1) < port(0) || port(1) > 65535)
        problem("'engine.worker_port_range' is " + range.dump() +
                ", expected two ports from 1 to 65535, the lower one first");
    }
  }

  void take_scaling(ScalingSettings& scaling) {
    const json& p = config_.provider;
    auto number = [&](const char* key, auto& target) {
      if (p.contains(key) && p[key].is_number())
        target = p[key].get<std::decay_t<decltype(target)>>();
    };
    number("init_blocks", scaling.init_blocks);
    number("min_blocks", scaling.min_blocks);
    number("max_blocks", scaling.max_blocks);
    number("nodes_per_block", scaling.nodes_per_block);
    number("parallelism", scaling.parallelism);
    number("walltime", scaling.walltime_s);
    number("cores_per_node", scaling.cores_per_node);
    if (scaling.min_blocks > scaling.max_blocks || scaling.init_blocks > scaling.max_blocks)
      problems_.push_back(
          {place_->line, place_->column,
           fmt::format("'engine.provider': init_blocks ({}) and min_blocks ({}) must not exceed "
                       "max_blocks ({})",
                       scaling.init_blocks, scaling.min_blocks, scaling.max_blocks)});
  }

  void problem(std::string text) {
    problems_.push_back({place_->line, place_->column, std::move(text)});
  }

  std::string file_;
  const ProviderSchema& schema_;
  const YamlNode* place_ = nullptr;
  bool lists_accelerators_ = false;
  std::vector<ConfigProblem> problems_, warnings_;
  EndpointConfig config_;
};

}  // namespace

Result<EndpointConfig> parse_endpoint_config(const std::string& text, const std::string& file_name,
                                             const ProviderSchema& schema) {
  return Parser(file_name, schema).parse(text);
}

Result<EndpointConfig> load_endpoint_config(const std::filesystem::path& file,
                                            const ProviderSchema& schema) {
  auto text = read_file(file);
  if (!text) return fail(text.error());
  return parse_endpoint_config(*text, file.string(), schema);
}

std::string endpoint_config_reference(const std::vector<std::string>& provider_types,
                                      const ProviderSchema& schema) {
  std::string text =
      "# Endpoint configuration\n\nOne YAML file, `FARCALL_HOME/endpoints/NAME/config.yaml`, in "
      "the shape of Globus "
      "Compute's.\nMade by `farcall-interchange --config-reference`; all problems of a file are "
      "reported at once with "
      "file:line:column.\n\n" +
      config_reference(top_keys());
  for (const std::string& type : provider_types) {
    auto keys = schema(type);
    if (keys)
      text += fmt::format("\n### `engine.provider` with `type: {}`\n\n{}", type,
                          config_reference(*keys, "engine.provider"));
  }
  return text;
}

}  // namespace farcall::interchange
