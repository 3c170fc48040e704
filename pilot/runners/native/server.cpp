#include "server.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <mutex>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/files.h"
#include "base/subprocess.h"
#include "farcall/function_abi.h"
#include "pilot/runners/frame.h"
#include "pilot/runners/process.h"
#include "wire/blobs.h"

namespace farcall::pilot {
namespace {

constexpr Duration kNoteEvery = std::chrono::milliseconds(100);
constexpr std::size_t kResultInlineMax = 1 << 20;  // as farcall_payloads.py has it

// The socket to the pilot. Thread-safe: a function may report progress from any of its threads.
class Pilot {
 public:
  explicit Pilot(int fd) : fd_(fd) {}

  // False: it is gone.
  bool send(const nlohmann::json& header, std::string_view body = {}) {
    std::string text;
    append_frame(text, header, body);
    std::lock_guard lock(mutex_);
    for (std::size_t done = 0; done < text.size();) {
      const ssize_t sent = ::send(fd_, text.data() + done, text.size() - done, MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      if (sent < 0) return false;
      done += static_cast<std::size_t>(sent);
    }
    return true;
  }
  std::optional<Frame> receive() {
    char buffer[65536];
    for (;;) {
      auto frame = reader_.next();
      if (!frame) return std::nullopt;
      if (*frame) return std::move(**frame);
      const ssize_t got = recv(fd_, buffer, sizeof buffer, 0);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return std::nullopt;
      reader_.append(buffer, static_cast<std::size_t>(got));
    }
  }

 private:
  const int fd_;
  FrameReader reader_;
  std::mutex mutex_;
};

// What a function says of its progress: at most ten times a second, the last word for certain. A
// thread of its own tells what came too soon; it is started when that happens first. Thread-safe.
class Notes {
 public:
  explicit Notes(Pilot& pilot) : pilot_(pilot) {}

  void say(nlohmann::json note) {
    std::lock_guard lock(mutex_);
    said_ = std::move(note);
    if (read_clock().mono >= next_) return tell();
    if (!std::exchange(has_thread_, true)) std::thread([this] { tell_later(); }).detach();
    changed_.notify_one();
  }
  // The task is over.
  void flush() {
    std::lock_guard lock(mutex_);
    tell();
  }

 private:
  void tell() {
    if (!said_.is_object()) return;
    pilot_.send(std::exchange(said_, nullptr));
    next_ = read_clock().mono + kNoteEvery;
  }
  [[noreturn]] void tell_later() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return said_.is_object(); });
      const Duration left = next_ - read_clock().mono;
      if (left > Duration{0})
        changed_.wait_for(lock, left);
      else
        tell();
    }
  }

  Pilot& pilot_;
  std::mutex mutex_;
  std::condition_variable changed_;
  nlohmann::json said_;
  MonoTime next_;
  bool has_thread_ = false;
};

// One call under way.
struct Call {
  Notes& notes;
  nlohmann::json header;  // of the answer
  std::string data;
  bool answered = false;
};

void take_answer(void* context, int kind, const char* data, std::size_t size) {
  Call& call = *static_cast<Call*>(context);
  call.answered = true;
  if (kind == FARCALL_VALUE) {
    call.data.assign(data, size);
    return;
  }
  const auto error = nlohmann::json::parse(data, data + size, nullptr, false);
  call.header["type"] = error.is_object() ? error.value("type", "unknown") : "unknown";
  call.header["message"] = error.is_object() ? error.value("message", "") : "";
  call.header["module"] = kind == FARCALL_EXCEPTION ? "c++" : "farcall";
}

void take_progress(void* context, double done, double total, const char* note, std::size_t size) {
  static_cast<Call*>(context)->notes.say(
      {{"op", "note"},
       {"done", done},
       {"total", total},
       {"text", std::string(note, std::min(size, kNoteTextBytesMax))}});
}

class Server {
 public:
  Server(int fd, std::string path, std::string name)
      : pilot_(fd), path_(std::move(path)), name_(std::move(name)) {}

  int run() {
    home_ = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (auto frame = pilot_.receive())
      if (!serve(*frame)) break;
    return 0;
  }

 private:
  bool serve(const Frame& frame) {
    Call call{notes_, {{"op", "done"}}, {}, false};
    std::vector<std::string> names;
    const nlohmann::json environment = frame.header.value("env", nlohmann::json::object());
    for (const auto& [key, value] : environment.items()) {
      setenv(key.c_str(), value.get<std::string>().c_str(), 1);
      names.push_back(key);
    }
    if (frame.header.contains("processors"))
      bind(frame.header["processors"].get<std::vector<std::uint32_t>>());
    call.header["started_ms"] = read_clock().wall.milliseconds_since_epoch();
    const std::string directory = frame.header.value("cwd", "");
    if (!directory.empty() && chdir(directory.c_str()) != 0)
      refuse(call, "FileNotFoundError",
             "the working directory '" + directory +
                 "' cannot be used: " + std::string(strerror(errno)));
    else if (auto arguments = arguments_of(frame); !arguments)
      refuse_here(call, "InputUnavailable", arguments.error().message);
    else
      call_function(call, frame, arguments->view());
    notes_.flush();
    stage(call, frame);
    call.header["ended_ms"] = read_clock().wall.milliseconds_since_epoch();
    std::fflush(nullptr);
    std::cout.flush();
    // What it has started ends with it.
    siginfo_t info;
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0) end_children();
    if (home_ >= 0 && fchdir(home_) != 0) return false;
    for (const std::string& key : names) unsetenv(key.c_str());
    return pilot_.send(call.header, call.data);
  }

  void bind(const std::vector<std::uint32_t>& processors) {
    if (processors.empty() || processors == bound_) return;
    bound_ = processors;
    const int count = static_cast<int>(1 + *std::max_element(processors.begin(), processors.end()));
    cpu_set_t* set = CPU_ALLOC(count);
    CPU_ZERO_S(CPU_ALLOC_SIZE(count), set);
    for (const std::uint32_t one : processors) CPU_SET_S(one, CPU_ALLOC_SIZE(count), set);
    if (sched_setaffinity(0, CPU_ALLOC_SIZE(count), set) != 0)
      std::fprintf(stderr, "farcall: not bound to its processors: %s\n", strerror(errno));
    CPU_FREE(set);
  }

  static Result<Bytes> arguments_of(const Frame& frame) {
    const std::string file = frame.header.value("arguments", "");
    if (file.empty()) return frame.body;
    auto content = read_file(file);
    return content ? Result<Bytes>(Bytes(std::move(*content))) : fail(content.error());
  }

  // A large result stays in a file at the endpoint until somebody wants it.
  static void stage(Call& call, const Frame& frame) {
    const std::string folder = frame.header.value("results", "");
    if (folder.empty() || call.data.size() <= kResultInlineMax) return;
    const char* task = std::getenv("FARCALL_TASK_ID");
    const std::uint64_t size = call.data.size();
    Command write;
    write.argv = {(program_directory() / "farcall-result-file").string(),
                  "write",
                  folder,
                  task == nullptr ? "task" : task,
                  std::to_string(size),
                  std::to_string(frame.header.value("results_gzip", 0))};
    write.standard_input = std::exchange(call.data, {});
    write.time_limit = std::chrono::hours(24);
    const auto done = run_command(write);
    if (done && done->exit_code == 0 && wire::is_blob_hash(done->out)) {
      call.data = wire::pack_blob_payload({{done->out, size}}, "[[0,null]]", "");
      return;
    }
    refuse_here(call, "ResultNotStored",
                fmt::format("the result of {}, {} bytes, cannot be kept in {}: {}; make room "
                            "there, or set `staging.directory` of the endpoint",
                            frame.header.value("function", ""), size, folder,
                            done ? done->err : done.error().message));
  }

  void call_function(Call& call, const Frame& frame, std::string_view arguments) {
    if (library_ == nullptr && !load(call)) return;
    const std::string name = frame.header.value("function", "");
    const auto* function = static_cast<const farcall_function*>(
        dlsym(library_, (FARCALL_FUNCTION_PREFIX + name).c_str()));
    if (function == nullptr) return refuse(call, "FunctionNotFound", name_ + ": " + dlerror());
    if (function->abi != FARCALL_FUNCTION_ABI)
      return refuse(call, "WrongVersion",
                    fmt::format("function {} of {} was built with version {} of "
                                "<farcall/function.h>, this runner has version {}: build it again "
                                "with the header that belongs to the endpoint",
                                name, name_, function->abi, FARCALL_FUNCTION_ABI));
    const farcall_host host{FARCALL_FUNCTION_ABI, sizeof host, &call, take_answer, take_progress};
    function->call(&host, arguments.data(), arguments.size());
    if (!call.answered) refuse(call, "NoAnswer", "function " + name + " gave no answer");
  }

  bool load(Call& call) {
    library_ = dlopen(path_.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library_ != nullptr) return true;
    refuse_here(call, "CannotLoad",
                name_ + " cannot be loaded: " + dlerror() +
                    "; the libraries that it needs must be on the nodes (worker_init can set "
                    "LD_LIBRARY_PATH)");
    return false;
  }

  // No fault of the function.
  static void refuse_here(Call& call, const std::string& type, const std::string& message) {
    refuse(call, type, message);
    call.header["environment"] = true;
  }

  static void refuse(Call& call, const std::string& type, const std::string& message) {
    call.header["type"] = type;
    call.header["message"] = message;
    call.header["module"] = "farcall";
  }

  static void end_children() {
    kill_trees([] { return children_of(getpid()); });
    while (waitpid(-1, nullptr, 0) > 0) {
    }
  }

  Pilot pilot_;
  Notes notes_{pilot_};
  const std::string path_, name_;
  void* library_ = nullptr;
  int home_ = -1;
  std::vector<std::uint32_t> bound_;
};

}  // namespace

int serve_functions(int fd, const std::string& path, const std::string& name) {
  return Server(fd, path, name).run();
}

}  // namespace farcall::pilot
