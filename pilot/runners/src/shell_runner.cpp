#include "pilot/runners/shell_runner.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/files.h"
#include "base/log.h"
#include "base/subprocess.h"
#include "pilot/core/failure.h"
#include "pilot/runners/process.h"
#include "pilot/runners/shell_template.h"
#include "wire/blob_payload.h"
#include "wire/blobs.h"
#include "wire/codec.h"
#include "wire/shell_result.h"

namespace farcall::pilot {

using nlohmann::json;
using wire::AttemptRef;

struct ShellFile {
  int fd = -1;
  bool own = false;  // and not the user's
  explicit ShellFile(int f, bool o = false) : fd(f), own(o) {}
  ShellFile(const ShellFile&) = delete;
  ~ShellFile() {
    if (fd >= 0) close(fd);
  }
};

namespace {

constexpr std::size_t kSnippetBytesMax = 1 << 20;  // of each stream
constexpr off_t kOutputKeptBytesMax = 64 << 20;
constexpr std::uint64_t kStreamBytesMax = 64 << 10;  // at a time
constexpr Duration kTendEvery = std::chrono::milliseconds(100);
constexpr int kWalltimeCode = 124;  // as timeout(1) has it
constexpr int kNotFoundCode = 127;
constexpr int kNotExecutableCode = 126;

// A file without a name: nothing to remove afterwards, and much cheaper than one that has one.
int open_nameless(const std::string& stem) {
  const auto folder = std::filesystem::path(stem).parent_path();
  int fd = open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return fd;
  // A file system that has none of these.
  fd = open(stem.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd >= 0) unlink(stem.c_str());
  return fd;
}

// The last `lines` lines of a file, at most kSnippetBytesMax of them. `truncated` is set when there
// was more; `total` is the size of all.
std::string snippet(const ShellFile& file, std::uint64_t from, std::size_t lines, bool& truncated,
                    std::uint64_t& total) {
  struct stat info {};
  if (file.fd < 0 || fstat(file.fd, &info) != 0) return "";
  const auto size = static_cast<std::uint64_t>(info.st_size);
  if (size <= from) return "";
  total = size - from;
  const std::uint64_t start = std::max(from, size > kSnippetBytesMax ? size - kSnippetBytesMax : 0);
  std::string text(size - start, '\0');
  std::size_t have = 0;
  while (have < text.size()) {
    const ssize_t got =
        pread(file.fd, text.data() + have, text.size() - have, static_cast<off_t>(start + have));
    if (got <= 0) break;
    have += static_cast<std::size_t>(got);
  }
  text.resize(have);
  if (start > from) truncated = true;
  std::size_t cut = text.size(), seen = 0;
  while (cut > 0) {
    if (text[cut - 1] == '\n' && cut != text.size() && ++seen == lines) break;
    --cut;
  }
  if (lines == 0) cut = text.size();
  if (cut > 0) truncated = true;
  return text.substr(cut);
}

// What was written from `from` on; where it is too much, its beginning is left out and `from`
// moved.
std::string new_bytes(const ShellFile& file, std::uint64_t& from) {
  struct stat info {};
  if (file.fd < 0 || fstat(file.fd, &info) != 0) return "";
  const auto size = static_cast<std::uint64_t>(info.st_size);
  if (size <= from) return "";
  if (size - from > kStreamBytesMax) from = size - kStreamBytesMax;
  std::string text(size - from, '\0');
  const ssize_t got = pread(file.fd, text.data(), text.size(), static_cast<off_t>(from));
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return text;
}

// A command that writes without end must not fill the disk: only the end is ever read, so the
// beginning is given back. The file keeps its size.
void give_back_beginning(const ShellFile& file) {
  struct stat info {};
  if (!file.own || fstat(file.fd, &info) != 0 || info.st_blocks * 512 < kOutputKeptBytesMax) return;
  (void)fallocate(file.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                  info.st_size - kOutputKeptBytesMax / 4);
}

// A result with the files that the task has left: [[hash, size, what they are], …].
Bytes with_outputs(const json& outputs, std::string_view result) {
  std::vector<wire::BlobRef> blobs;
  json places = json::array();
  for (const json& one : outputs) {
    places.push_back({blobs.size(), one.at(2).at("file"), one.at(2)});
    blobs.push_back({one.at(0).get<std::string>(), one.at(1).get<std::uint64_t>()});
  }
  return Bytes(wire::pack_blob_payload(blobs, places.dump(), result));
}

// The files that an argument set brings along, and the rest of it.
Result<std::string_view> take_files(const Assignment& work, const std::string& results,
                                    json& files) {
  auto refs = wire::blob_refs(work.arguments.view());
  if (!refs) return fail(refs.error());
  auto places = wire::blob_places(work.arguments.view());
  if (!places) return fail(places.error());
  try {
    for (const json& place : json::parse(places->places)) {
      const json& which = place.at(0);
      // A file that an earlier task has left lies with the results.
      files.push_back({which.is_array()
                           ? fmt::format("{}/{}.{}.file", results, which.at(2).get<std::string>(),
                                         which.at(0).get<std::string>())
                           : work.blobs.at(refs->at(which.get<std::size_t>()).hash),
                       place.at(2)});
    }
  } catch (const std::exception& error) {
    return fail(ErrorCode::kInvalidArgument, "the files of a shell task cannot be read: {}",
                error.what());
  }
  return places->rest;
}

// What the kernel runs itself; a shell would also take a text without "#!".
bool is_binary(const std::string& program) {
  char magic[4] = {};
  const ShellFile file(open(program.c_str(), O_RDONLY | O_CLOEXEC));
  return file.fd >= 0 && pread(file.fd, magic, sizeof magic, 0) == sizeof magic &&
         (std::memcmp(magic, "\177ELF", 4) == 0 || std::memcmp(magic, "#!", 2) == 0);
}

std::string string_or_empty(const json& value, const char* key) {
  auto found = value.find(key);
  return found != value.end() && found->is_string() ? found->get<std::string>() : "";
}

}  // namespace

struct ShellRunner::Plan {
  std::vector<std::string> argv;   // not looked up yet
  std::vector<std::string> plain;  // of a command that argv gives to a shell without need
  std::string cmd;                 // as people read it
  std::string standard_input;
  double walltime_s = 0;
  std::string directory;  // empty: the pilot's
  std::map<std::string, std::string> environment;
  std::size_t snippet_lines = 1000;
  std::string out_path, err_path;
  std::uint64_t out_from = 0, err_from = 0;  // what stood there before
  std::shared_ptr<ShellFile> out, err;
  json files = json::array();    // [[path, what farcall_files.py is told of it], …]
  json outputs = json::array();  // patterns
  std::string report;            // file: what it is told, and then says; empty: there are none
};

struct ShellRunner::Running {
  Assignment work;
  Plan plan;
  pid_t pid = 0;
  bool killing = false;
  std::optional<FailureText> verdict;  // for which it is being killed
  bool out_of_time = false;
  std::uint64_t start_ticks = 0;  // as start_of_process() has it
  bool streams = false;
  std::shared_ptr<const Processors> processors;
  std::uint64_t out_told = 0, err_told = 0;  // streamed up to here
  Poller::TimerId timer = 0;
};

ShellRunner::ShellRunner(Poller& poller, RunnerSettings settings, RunnerEvents events)
    : poller_(poller),
      settings_(std::move(settings)),
      events_(std::move(events)),
      environment_(process_environment()) {}

ShellRunner::~ShellRunner() {
  if (tend_timer_ != 0) poller_.cancel(tend_timer_);
  for (auto& [ref, running] : running_) {
    kill_tree(running->pid);
    poller_.on_exit(running->pid, [](int) {});
    if (running->timer != 0) poller_.cancel(running->timer);
  }
}

// Body and arguments into what is to be run; the error is the user's.
Result<ShellRunner::Plan> ShellRunner::plan(const Assignment& work, const std::string& results) {
  const json body = json::parse(work.function->body.view(), nullptr, false);
  if (!body.is_object())
    return fail(ErrorCode::kInvalidArgument, "the body of a shell function is no JSON object");
  Plan plan;
  std::string_view bytes = work.arguments.view();
  if (!bytes.empty() && bytes[0] == 'B') {
    auto rest = take_files(work, results, plan.files);
    if (!rest) return fail(rest.error());
    bytes = *rest;
  }
  if (bytes.empty() || bytes[0] != 'J')
    return fail(ErrorCode::kInvalidArgument,
                "arguments of a shell function have to be JSON (first byte J), found {}",
                bytes.empty() ? "nothing" : "'" + std::string(1, bytes[0]) + "'");
  const json arguments = json::parse(bytes.substr(1), nullptr, false);
  if (!arguments.is_object())
    return fail(ErrorCode::kInvalidArgument, "the arguments of a shell task are no JSON object");

  if (arguments.contains("argv")) {
    const json& words = arguments["argv"];
    if (!words.is_array() || words.empty())
      return fail(ErrorCode::kInvalidArgument, "argv has to be a list of at least one word");
    for (const json& word : words) {
      if (!word.is_string())
        return fail(ErrorCode::kInvalidArgument, "argv has to be a list of strings, found {}",
                    word.dump());
      plan.argv.push_back(word.get<std::string>());
    }
    plan.cmd = shell_join(plan.argv);
  } else {
    if (!body.contains("cmd") || !body["cmd"].is_string())
      return fail(ErrorCode::kInvalidArgument,
                  "a shell function without \"cmd\" needs arguments with \"argv\"");
    std::set<std::string> raw;
    for (const json& name : arguments.value("raw", json::array()))
      if (name.is_string()) raw.insert(name.get<std::string>());
    auto cmd = fill_template(body["cmd"].get<std::string>(),
                             arguments.value("kwargs", json::object()), raw);
    if (!cmd) return tl::unexpected(cmd.error());
    plan.cmd = *cmd;
    plan.argv = {access("/bin/bash", X_OK) == 0 ? "/bin/bash" : "/bin/sh", "-c", plan.cmd};
    plan.plain = plain_words(plan.cmd);
  }
  plan.standard_input = string_or_empty(arguments, "stdin");
  for (const json* source : {&body, &arguments}) {
    auto walltime = source->find("walltime_s");
    if (walltime != source->end() && walltime->is_number())
      plan.walltime_s = walltime->get<double>();
    auto lines = source->find("snippet_lines");
    if (lines != source->end() && lines->is_number_unsigned())
      plan.snippet_lines = lines->get<std::size_t>();
    if (auto text = string_or_empty(*source, "cwd"); !text.empty()) plan.directory = text;
    if (auto text = string_or_empty(*source, "stdout"); !text.empty()) plan.out_path = text;
    if (auto text = string_or_empty(*source, "stderr"); !text.empty()) plan.err_path = text;
  }
  const json environment = arguments.value("env", json::object());
  for (const auto& [name, value] : environment.items())
    plan.environment[name] = value.is_string() ? value.get<std::string>() : value.dump();
  const auto outputs = work.header->environment.find("FARCALL_TASK_OUTPUTS");
  if (outputs != work.header->environment.end())
    plan.outputs = json::parse(outputs->second, nullptr, false);
  if (!plan.outputs.is_array())
    return fail(ErrorCode::kInvalidArgument, "FARCALL_TASK_OUTPUTS is no list: {}",
                outputs->second);
  return plan;
}

// A command of plain words is run as it is, as make(1) does: what a shell would add is PWD. Empty
// when it takes one, also to say what is wrong.
std::string ShellRunner::program_without_shell(Plan& plan,
                                               std::map<std::string, std::string>& environment,
                                               const std::string& search) {
  if (plan.plain.empty() || environment.contains("BASH_ENV") ||
      environment.contains("BASH_FUNC_" + plan.plain[0] + "%%"))
    return "";
  std::string program = find_program(plan.plain[0], search, plan.directory);
  if (program.empty() || !is_binary(program)) return "";
  plan.argv = plan.plain;
  if (!plan.directory.empty()) environment["PWD"] = plan.directory;
  // As it was called: a script sees that in $0. The child is in the directory by then.
  return plan.plain[0].find('/') == std::string::npos ? program : plan.plain[0];
}

void ShellRunner::start(const Start& start) {
  auto plan = ShellRunner::plan(start.work, settings_.results);
  if (!plan)
    return refuse(start.work, FailureClass::kUserError, "ValueError", plan.error().message);
  launch(start.work, std::move(*plan));
}

void ShellRunner::launch(const Assignment& work, Plan plan) {
  std::string sandbox;
  if (work.header->sandbox) {
    auto made = make_sandbox(settings_, work);
    if (!made) return refuse(work, FailureClass::kEnvironment, "NoSandbox", made.error().message);
    sandbox = *made;
  }
  plan.directory = (std::filesystem::path(directory_of(work, sandbox)) / plan.directory).string();
  Spawn what;
  what.environment = environment_;
  for (auto& [name, value] : task_environment(work, sandbox)) what.environment[name] = value;
  for (auto& [name, value] : plan.environment) what.environment[name] = value;
  what.directory = plan.directory;

  const std::string stem =
      (settings_.scratch / fmt::format("{}.{}", work.task().string(), work.ref.attempt)).string();
  if (auto written = hand_over_files(work, sandbox, stem, plan); !written)
    return refuse(work, FailureClass::kEnvironment, "OSError", written.error().message);
  ShellFile in(-1);
  if (!open_streams(work, stem, plan, in)) return;
  what.in = in.fd;
  what.out = plan.out->fd;
  what.err = plan.err->fd;

  const auto path = what.environment.find("PATH");
  const std::string search = path == what.environment.end() ? "/usr/bin:/bin" : path->second;
  std::string program = program_without_shell(plan, what.environment, search);
  if (program.empty()) program = find_program(plan.argv[0], search, plan.directory);
  events_.began(work.ref);
  struct stat info {};
  if (!plan.directory.empty() &&
      (stat(plan.directory.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)))
    return refuse(work, FailureClass::kUserError, "FileNotFoundError",
                  fmt::format("the working directory '{}' does not exist on {}", plan.directory,
                              settings_.node));
  const auto not_run = [&](int code, std::string text) {
    auto running = std::make_unique<Running>();
    running->work = work;
    running_[work.ref] = std::move(running);
    finish(work.ref, plan, code, 0, std::move(text));
  };
  if (program.empty())
    return not_run(kNotFoundCode,
                   plan.argv[0].find('/') == std::string::npos
                       ? fmt::format("command '{}' was not found on {}: looked on PATH={}",
                                     plan.argv[0], settings_.node, search)
                       : fmt::format("command '{}' is no executable file on {}", plan.argv[0],
                                     settings_.node));
  what.argv = plan.argv;
  what.program = program;
  std::shared_ptr<const Processors> processors;
  if (settings_.affinity != nullptr) {
    processors = settings_.affinity->of(work, settings_.affinity->take());
    what.processors = *processors;
  }
  auto pid = spawn(what);
  if (!pid) return not_run(kNotExecutableCode, pid.error().message + " on " + settings_.node);

  auto running = std::make_unique<Running>();
  running->processors = std::move(processors);
  follow(work, std::move(plan), *pid, std::move(running));
}

// False: it is refused, and said why.
bool ShellRunner::open_streams(const Assignment& work, const std::string& stem, Plan& plan,
                               ShellFile& in) {
  const auto open_output = [&](std::string path, std::shared_ptr<ShellFile>& file,
                               std::uint64_t& from, const char* suffix) {
    const bool own = path.empty();
    path = own ? stem + suffix : (std::filesystem::path(plan.directory) / path).string();
    const int flags = O_CREAT | O_CLOEXEC | O_APPEND;
    int fd = own ? open_nameless(path) : open(path.c_str(), flags | O_RDWR, 0644);
    // One that may be written but not read: then nothing of it comes back.
    if (!own && fd < 0 && errno == EACCES) fd = open(path.c_str(), flags | O_WRONLY, 0644);
    file = std::make_shared<ShellFile>(fd, own);
    if (fd < 0) {
      refuse(work, own ? FailureClass::kEnvironment : FailureClass::kUserError, "OSError",
             fmt::format("cannot write {} on {}: {}", path, settings_.node, strerror(errno)));
      return false;
    }
    if (!own) from = static_cast<std::uint64_t>(std::max<off_t>(lseek(fd, 0, SEEK_END), 0));
    return true;
  };
  if (!open_output(plan.out_path, plan.out, plan.out_from, ".stdout")) return false;
  if (!open_output(plan.err_path, plan.err, plan.err_from, ".stderr")) return false;
  if (plan.standard_input.empty()) return true;
  // A file and no pipe: a command that never reads its input must not block anybody.
  in.fd = open(settings_.scratch.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  for (std::size_t done = 0; in.fd >= 0 && done < plan.standard_input.size();) {
    const ssize_t wrote =
        ::write(in.fd, plan.standard_input.data() + done, plan.standard_input.size() - done);
    if (wrote <= 0) {
      refuse(work, FailureClass::kEnvironment, "OSError",
             fmt::format("cannot write the standard input of the command on {}: {}", settings_.node,
                         strerror(errno)));
      return false;
    }
    done += static_cast<std::size_t>(wrote);
  }
  if (in.fd >= 0) lseek(in.fd, 0, SEEK_SET);
  return true;
}

void ShellRunner::follow(const Assignment& work, Plan plan, pid_t pid,
                         std::unique_ptr<Running> running) {
  running->work = work;
  running->plan = std::move(plan);
  running->pid = pid;
  running->start_ticks = start_of_process(pid);
  running->streams = wishes_of(*work.header).stream_output;
  const AttemptRef ref = work.ref;
  poller_.on_exit(pid, [this, ref](int status) { on_exit(ref, status); });
  if (running->plan.walltime_s > 0) {
    const auto limit = std::chrono::duration_cast<Duration>(
        std::chrono::duration<double>(std::min(running->plan.walltime_s, 1e8)));
    running->timer = poller_.after(limit, [this, ref] {
      Running& late = *running_.at(ref);
      late.timer = 0;
      late.out_of_time = true;
      kill_all_of(late);
    });
  }
  running_[ref] = std::move(running);
  if (tend_timer_ == 0) tend_timer_ = poller_.after(kTendEvery, [this] { tend(); });
}

Result<void> ShellRunner::hand_over_files(const Assignment& work, const std::string& sandbox,
                                          const std::string& stem, Plan& plan) const {
  if (plan.files.empty() && plan.outputs.empty()) return {};
  plan.report = stem + ".files";
  plan.plain.clear();
  const json told = {{"directory", sandbox.empty() ? plan.directory : sandbox},
                     {"files", plan.files},
                     {"outputs", plan.outputs},
                     {"results", settings_.results},
                     {"task", work.task().string()}};
  if (auto written = write_file(plan.report, told.dump(), 0600); !written)
    return fail(ErrorCode::kIo, "cannot write {} on {}: {}", plan.report, settings_.node,
                written.error().message);
  const std::vector<std::string> before = {
      settings_.python, "-I", (settings_.runner_directory / "farcall_files.py").string(), "run",
      plan.report};
  plan.argv.insert(plan.argv.begin(), before.begin(), before.end());
  return {};
}

// What farcall_files.py says of the task's files: nothing when it was killed.
Result<json> ShellRunner::take_report(const Plan& plan, FailureClass& failure) const {
  if (plan.report.empty()) return json::array();
  auto text = read_file(plan.report);
  ::unlink(plan.report.c_str());
  const json report = text ? json::parse(*text, nullptr, false) : json();
  if (!report.is_object() || !report.contains("said")) return json::array();
  const json& said = report["said"];
  if (!said.contains("error")) return said.value("outputs", json::array());
  if (said.value("user", false)) failure = FailureClass::kUserError;
  return fail(ErrorCode::kIo, "{}", said["error"].get<std::string>());
}

void ShellRunner::tend() {
  tend_timer_ = 0;
  for (auto& [ref, running] : running_) {
    for (const auto& file : {running->plan.out, running->plan.err})
      if (file) give_back_beginning(*file);
    if (running->streams) tell(ref, *running);
  }
  if (!running_.empty()) tend_timer_ = poller_.after(kTendEvery, [this] { tend(); });
}

void ShellRunner::tell(const AttemptRef& ref, Running& running) {
  const Plan& plan = running.plan;
  Note note;
  std::uint64_t out_from = plan.out_from + running.out_told;
  std::uint64_t err_from = plan.err_from + running.err_told;
  note.out = new_bytes(*plan.out, out_from);
  note.err = new_bytes(*plan.err, err_from);
  if ((note.out.empty() && note.err.empty()) || !events_.note) return;
  note.out_offset = out_from - plan.out_from;
  note.err_offset = err_from - plan.err_from;
  running.out_told = note.out_offset + note.out.size();
  running.err_told = note.err_offset + note.err.size();
  events_.note(ref, std::move(note));
}

std::vector<pid_t> ShellRunner::roots_of(const Running& running) const {
  std::vector<pid_t> roots =
      adopted_of(running.work.task().string(), [this](pid_t pid) { return poller_.is_ours(pid); });
  roots.push_back(running.pid);
  return roots;
}

void ShellRunner::kill_all_of(const Running& running) {
  kill_trees([&] { return roots_of(running); });
  ::kill(-running.pid, SIGKILL);
}

void ShellRunner::end(const AttemptRef& ref, const FailureText& why) {
  auto found = running_.find(ref);
  if (found == running_.end() || found->second->killing) return;
  found->second->verdict = why;
  found->second->killing = true;
  kill_all_of(*found->second);
}

std::vector<pid_t> ShellRunner::processes_of(const AttemptRef& ref) const {
  auto found = running_.find(ref);
  if (found == running_.end() || found->second->pid == 0) return {};
  return roots_of(*found->second);
}

std::uint64_t ShellRunner::oldest_start() const {
  std::uint64_t oldest = UINT64_MAX;
  for (const auto& [ref, running] : running_)
    if (running->start_ticks != 0) oldest = std::min(oldest, running->start_ticks);
  return oldest;
}

void ShellRunner::kill(const AttemptRef& ref) {
  auto found = running_.find(ref);
  if (found == running_.end()) return;
  found->second->killing = true;
  kill_all_of(*found->second);
}

void ShellRunner::on_exit(const AttemptRef& ref, int status) {
  Running& running = *running_.at(ref);
  if (running.timer != 0) poller_.cancel(running.timer);
  // What it left running in the background ends with it, also what has left its process group.
  ::kill(-running.pid, SIGKILL);
  const std::string task = running.work.task().string();
  kill_left_behind([this](pid_t pid) { return poller_.is_ours(pid); },
                   [&](const std::string& other) { return other == task; });
  if (running.killing) {
    const std::optional<FailureText> verdict = running.verdict;
    running_.erase(ref);
    if (verdict) return events_.finished(failed_attempt(ref, *verdict, status));
    return events_.killed(ref);
  }
  const Plan plan = std::move(running.plan);
  const int code = running.out_of_time   ? kWalltimeCode
                   : WIFSIGNALED(status) ? -WTERMSIG(status)
                                         : WEXITSTATUS(status);
  finish(ref, plan, code, status, "");
}

void ShellRunner::finish(const AttemptRef& ref, const Plan& plan, int returncode, int status,
                         std::string extra_error) {
  const bool out_of_time = running_.at(ref)->out_of_time;
  wire::ShellResult result;
  result.cmd = plan.cmd;
  result.out =
      snippet(*plan.out, plan.out_from, plan.snippet_lines, result.truncated, result.out_bytes);
  result.err =
      snippet(*plan.err, plan.err_from, plan.snippet_lines, result.truncated, result.err_bytes);
  if (!extra_error.empty()) {
    result.err += extra_error + "\n";
    result.err_bytes += extra_error.size() + 1;
  }
  result.returncode = returncode;
  if (out_of_time)
    result.exception_name = "subprocess.TimeoutExpired";
  else if (returncode != 0)
    result.exception_name = "subprocess.CalledProcessError";
  FailureClass failure = FailureClass::kEnvironment;
  const auto outputs = take_report(plan, failure);
  const Assignment work = std::move(running_.at(ref)->work);
  running_.erase(ref);
  if (!outputs)
    return refuse(work, failure,
                  failure == FailureClass::kUserError ? "OutputMissing" : "FilesNotStaged",
                  outputs.error().message);

  Finished finished;
  finished.ref = ref;
  finished.outcome.state = TaskState::kSucceeded;
  finished.outcome.exit_code = returncode < 0 ? 128 - returncode : returncode;
  if (!out_of_time && WIFSIGNALED(status)) finished.outcome.signal = WTERMSIG(status);
  finished.data = Bytes(std::string(1, wire::kShellResultMark) + wire::encode(result));
  if (!outputs->empty()) finished.data = with_outputs(*outputs, finished.data.view());
  events_.finished(std::move(finished));
}

void ShellRunner::refuse(const Assignment& work, FailureClass failure, const std::string& type,
                         const std::string& text) {
  events_.finished(failed_attempt(work.ref, {type, text, failure, settings_.node}));
}

pid_t ShellRunner::process_of(const AttemptRef& ref) const {
  auto found = running_.find(ref);
  return found == running_.end() ? 0 : found->second->pid;
}

bool ShellRunner::runs(const std::string& task) const {
  return std::any_of(running_.begin(), running_.end(),
                     [&](const auto& item) { return item.second->work.task().string() == task; });
}

}  // namespace farcall::pilot
