#include "providers_local/local_provider.h"

#include <dlfcn.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/files.h"
#include "base/subprocess.h"

namespace farcall::providers::local {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

double boot_time_s() {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

std::string read_proc(const std::string& path) {
  std::string text;
  FILE* file = std::fopen(path.c_str(), "re");
  if (file == nullptr) return text;
  char buffer[4096];
  for (std::size_t got = 0; (got = std::fread(buffer, 1, sizeof buffer, file)) > 0;) {
    text.append(buffer, got);
  }
  std::fclose(file);
  return text;
}

std::string boot_id() {
  std::string id = read_proc("/proc/sys/kernel/random/boot_id");
  while (!id.empty() && id.back() == '\n') id.pop_back();
  return id.empty() ? "-" : id;
}

// Zombies count as gone: some init processes collect late.
bool is_alive(const KeeperRecord& keeper) {
  const std::string stat = read_proc(fmt::format("/proc/{}/stat", keeper.pid));
  const auto name_end = stat.rfind(')');  // the name may hold blanks and parentheses
  if (name_end == std::string::npos || keeper.boot_id != boot_id()) return false;
  std::istringstream fields(stat.substr(name_end + 1));
  std::string state, skipped;
  unsigned long long start_ticks = 0;
  fields >> state;
  for (int i = 0; i < 18; ++i) fields >> skipped;
  fields >> start_ticks;
  return fields && state != "Z" && state != "X" && start_ticks == keeper.start_ticks;
}

// The pid is held while it is checked, so that the signal cannot reach a stranger.
void terminate(const KeeperRecord& keeper) {
  const int fd = static_cast<int>(syscall(SYS_pidfd_open, keeper.pid, 0));
  if (fd < 0) {
    if (errno == ENOSYS && is_alive(keeper)) kill(keeper.pid, SIGTERM);
    return;
  }
  if (is_alive(keeper)) syscall(SYS_pidfd_send_signal, fd, SIGTERM, nullptr, 0);
  close(fd);
}

// Kills what a keeper that was itself killed left behind: every process of a job has the job's
// folder in its environment.
void sweep(const fs::path& folder) {
  const std::string mark = "FARCALL_LOCAL_JOB=" + folder.string();
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename().string();
    int pid = 0;
    const auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (bad != std::errc() || end != name.data() + name.size() || pid <= 1) continue;
    std::istringstream environment(read_proc("/proc/" + name + "/environ"));
    for (std::string variable; std::getline(environment, variable, '\0');) {
      if (variable == mark) kill(pid, SIGKILL);
    }
  }
}

Result<fs::path> find_keeper() {
  std::vector<fs::path> candidates;
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&parse_keeper), &info) != 0 &&
      info.dli_fname != nullptr) {
    candidates.push_back(fs::absolute(info.dli_fname).parent_path() / "../farcall-local-keeper");
  }
  candidates.push_back(program_directory() / "../lib/farcall/farcall-local-keeper");
  for (const auto& candidate : candidates) {
    if (access(candidate.c_str(), X_OK) == 0) return candidate.lexically_normal();
  }
  return fail(ErrorCode::kConfig,
              "provider local: its program farcall-local-keeper is not at {}; is the installation "
              "complete?",
              candidates.front().lexically_normal().string());
}

std::string render(const std::string& worker_init, const BlockRequest& request) {
  std::string text = "#!/bin/bash\n";
  if (!worker_init.empty()) text += worker_init + "\n";
  return text + "exec /bin/bash -c " + shell_quote(request.command) + "\n";
}

void describe_end(const EndRecord& end, JobStatus& status) {
  status.state = JobState::kEnded;
  status.ended_by = end.ended_by;
  status.word = std::string(ended_by_name(end.ended_by));
  if (end.signal != 0) {
    status.signal = end.signal;
  } else {
    status.exit_code = end.exit_code;
  }
  if (end.keeper_lost && end.ended_by != EndedBy::kCancelled) {
    status.reason = "its keeper was killed, or the host was started again";
  }
}

}  // namespace

Result<KeeperRecord> parse_keeper(std::string_view text) {
  std::istringstream in{std::string(text)};
  KeeperRecord keeper;
  in >> keeper.pid >> keeper.start_ticks >> keeper.boot_id >> keeper.started_s >> keeper.walltime_s;
  if (!in || keeper.pid <= 1) {
    return fail(ErrorCode::kCorrupt, "provider local: \"{}\" is no record of a keeper", text);
  }
  return keeper;
}

Result<EndRecord> parse_end(std::string_view text) {
  std::istringstream in{std::string(text)};
  EndRecord end;
  std::string how;
  in >> how >> end.exit_code >> end.signal;
  for (const auto known :
       {EndedBy::kCompleted, EndedBy::kFailed, EndedBy::kCancelled, EndedBy::kWalltime}) {
    if (how == ended_by_name(known)) end.ended_by = known;
  }
  if (!in || end.ended_by == EndedBy::kUnknown) {
    return fail(ErrorCode::kCorrupt, "provider local: \"{}\" is no record of a job's end", text);
  }
  std::string note;
  end.keeper_lost = in >> note && note == "keeper-lost";
  return end;
}

std::vector<ConfigKey> LocalProvider::schema() {
  std::vector<ConfigKey> keys = common_keys();
  auto& walltime = key_named(keys, "walltime");
  walltime.default_value = 24 * 3600;
  walltime.help = "Time limit of a block; nobody asks for one here, so it is long.";
  key_named(keys, "nodes_per_block").help = "Pilots of one block; all of them run on this host.";
  ConfigKey wait;
  wait.name = "kill_wait";
  wait.type = KeyType::kDuration;
  wait.default_value = 3;
  wait.unit = "s";
  wait.minimum = 0;
  wait.help = "What is left of a block this long after SIGTERM gets SIGKILL.";
  keys.push_back(wait);
  ConfigKey launcher;
  launcher.name = "launcher";
  launcher.type = KeyType::kMap;
  launcher.ignored = true;
  launcher.help = "Accepted for compatibility.";
  ConfigKey type;
  type.name = "type";
  type.ignored = true;
  type.help = "Accepted for compatibility.";
  launcher.keys = {type};
  keys.push_back(launcher);
  return keys;
}

Result<std::unique_ptr<Provider>> LocalProvider::create(const json& config) {
  std::unique_ptr<LocalProvider> provider(new LocalProvider);
  try {
    const auto directory = config.at("directory").get<std::string>();
    if (directory.empty() || directory[0] != '/') {
      return fail(ErrorCode::kConfig, "provider local: directory \"{}\" is no absolute path",
                  directory);
    }
    provider->jobs_ = fs::path(directory) / "local-jobs";
    provider->worker_init_ = config.value("worker_init", "");
    provider->cmd_timeout_s_ = config.value("cmd_timeout", provider->cmd_timeout_s_);
    provider->kill_wait_s_ = config.value("kill_wait", provider->kill_wait_s_);
  } catch (const json::exception& error) {
    return fail(ErrorCode::kConfig, "provider local: configuration: {}", error.what());
  }
  auto keeper = find_keeper();
  if (!keeper) return fail(keeper.error());
  provider->keeper_ = *keeper;
  if (auto made = make_directory(provider->jobs_, 0700); !made) return fail(made.error());
  return provider;
}

fs::path LocalProvider::folder_of(const std::string& job_id) const { return jobs_ / job_id; }

Result<SubmitReply> LocalProvider::submit(const BlockRequest& request) {
  if (auto checked = check_request(request); !checked) return fail(checked.error());
  forget_old_jobs();
  if (auto made = make_directory(request.directory, 0700); !made) return fail(made.error());
  const fs::path folder = folder_of(request.job_name);
  std::error_code error;
  if (!fs::create_directory(folder, error)) {
    if (error) return fail(ErrorCode::kIo, "cannot make {}: {}", folder.string(), error.message());
    return fail(ErrorCode::kSchedulerRefused, "provider local: there is a job {} already",
                request.job_name);
  }
  const std::string script_file = request.directory + "/" + request.job_name + ".sh";
  if (auto written = write_file(script_file, render(worker_init_, request), 0600); !written) {
    fs::remove_all(folder, error);
    return fail(written.error());
  }
  Command command;
  command.argv = {keeper_.string(),
                  folder.string(),
                  request.job_name,
                  fmt::format("{}", request.nodes),
                  fmt::format("{:.3f}", request.walltime_s),
                  fmt::format("{:.3f}", kill_wait_s_),
                  request.directory,
                  script_file};
  command.time_limit =
      std::chrono::duration_cast<Duration>(std::chrono::duration<double>(cmd_timeout_s_));
  const auto output = run_command(command);
  if (output && !output->timed_out && output->exit_code == 0) return SubmitReply{request.job_name};
  if (output && output->timed_out) {
    return fail(ErrorCode::kOutcomeUnknown,
                "provider local: the keeper of job {} did not answer in {} s", request.job_name,
                cmd_timeout_s_);
  }
  const std::string why = output ? output->err : output.error().message;
  // A keeper that wrote its record lives on by itself, whatever became of the one that started it.
  if (fs::exists(folder / "keeper", error)) {
    return fail(ErrorCode::kOutcomeUnknown, "provider local: job {}: {}", request.job_name, why);
  }
  fs::remove_all(folder, error);
  return fail(ErrorCode::kSchedulerRefused, "provider local: job {} was not started: {}",
              request.job_name, why);
}

Result<JobStatus> LocalProvider::status_of(const std::string& job_id) {
  JobStatus status;
  status.job_id = job_id;
  const fs::path folder = folder_of(job_id);
  const bool plain = !job_id.empty() && job_id.find('/') == std::string::npos && job_id[0] != '.';
  const auto record =
      plain ? read_file(folder / "keeper") : Result<std::string>(fail(ErrorCode::kNotFound, ""));
  if (!record) {
    if (record.error().code != ErrorCode::kNotFound) return fail(record.error());
    status.listed = false;
    status.reason = "not listed";
    return status;
  }
  const auto keeper = parse_keeper(*record);
  if (!keeper) return fail(keeper.error());
  status.job_name = job_id;
  status.nodes = {host_name()};
  status.restarts = 0;
  std::error_code error;
  const bool alive = is_alive(*keeper);  // before the end is looked for: it is written first
  if (const auto text = read_file(folder / "ended"); text) {
    const auto end = parse_end(*text);
    if (!end) return fail(end.error());
    describe_end(*end, status);
  } else if (alive) {
    const bool ending =
        fs::exists(folder / "ending", error) || fs::exists(folder / "cancel", error);
    status.state = ending ? JobState::kEnding : JobState::kRunning;
    status.word = ending ? "ending" : "running";
    if (!ending) {
      status.remaining_s = std::max(0.0, keeper->started_s + keeper->walltime_s - boot_time_s());
    }
  } else {
    sweep(folder);
    const bool cancelled = fs::exists(folder / "cancel", error);
    const EndRecord end{cancelled ? EndedBy::kCancelled : EndedBy::kFailed, 0, SIGKILL, true};
    const auto written =
        write_file(folder / "ended",
                   fmt::format("{} 0 {} keeper-lost\n", ended_by_name(end.ended_by), end.signal));
    if (!written) return fail(written.error());
    describe_end(end, status);
  }
  return status;
}

Result<std::vector<JobStatus>> LocalProvider::status(const std::vector<std::string>& job_ids) {
  std::vector<JobStatus> jobs;
  for (const auto& id : job_ids) {
    auto job = status_of(id);
    if (!job) return fail(job.error());
    jobs.push_back(std::move(*job));
  }
  return jobs;
}

Result<std::vector<std::string>> LocalProvider::find_by_name(const std::string& job_name) {
  auto job = status_of(job_name);
  if (!job) return fail(job.error());
  if (!job->listed) return std::vector<std::string>();
  return std::vector<std::string>{job_name};
}

Result<void> LocalProvider::cancel(const std::vector<std::string>& job_ids) {
  for (const auto& id : job_ids) {
    auto job = status_of(id);
    if (!job) return fail(job.error());
    if (!job->listed || job->state == JobState::kEnded) continue;
    const auto record = read_file(folder_of(id) / "keeper");
    if (!record) return fail(record.error());
    const auto keeper = parse_keeper(*record);
    if (!keeper) return fail(keeper.error());
    if (auto written = write_file(folder_of(id) / "cancel", ""); !written) {
      return fail(written.error());
    }
    terminate(*keeper);
  }
  return {};
}

Result<std::string> LocalProvider::script(const BlockRequest& request) {
  if (auto checked = check_request(request); !checked) return fail(checked.error());
  return render(worker_init_, request);
}

// A day after its end nobody asks for a job any more.
void LocalProvider::forget_old_jobs() const {
  std::error_code error;
  const auto now = fs::file_time_type::clock::now();
  for (const auto& entry : fs::directory_iterator(jobs_, error)) {
    const auto ended = fs::last_write_time(entry.path() / "ended", error);
    if (!error && now - ended > std::chrono::hours(24)) fs::remove_all(entry.path(), error);
    error.clear();
  }
}

}  // namespace farcall::providers::local
