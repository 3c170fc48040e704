// Functions that tests call through farcall: those that behave, and those that do not.
#include <farcall/function.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <stdexcept>
#include <thread>

namespace {

struct Beam {
  double length = 0;
  int parts = 0;
  std::vector<double> loads;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Beam, length, parts, loads)

double integrate(double from, double to, int steps) {
  double sum = 0;
  const double width = (to - from) / steps;
  for (int i = 0; i < steps; ++i) sum += std::sin(from + (i + 0.5) * width) * width;
  return sum;
}

int counter = 0;

struct Unstable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace

FARCALL_FUNCTION(integrate, integrate)
FARCALL_FUNCTION(add, [](std::int64_t a, std::int64_t b) { return a + b; })
FARCALL_FUNCTION(sum, [](const std::vector<double>& x) {
  return std::accumulate(x.begin(), x.end(), 0.0);
})
FARCALL_FUNCTION(join, [](const std::vector<std::string>& words, const std::string& between) {
  std::string out;
  for (const auto& word : words) out += (out.empty() ? "" : between) + word;
  return out;
})
FARCALL_FUNCTION(count, [](const std::map<std::string, int>& counts, std::optional<int> extra) {
  int all = extra.value_or(0);
  for (const auto& [name, n] : counts) all += n;
  return std::make_tuple(all, extra, !counts.empty());
})
FARCALL_FUNCTION(bend, [](const Beam& beam) {
  return Beam{beam.length / 2, beam.parts * 2, {beam.loads.rbegin(), beam.loads.rend()}};
})
FARCALL_FUNCTION(small, [](std::int8_t n) { return n; })
FARCALL_FUNCTION(nan, []() { return std::vector<double>{NAN, INFINITY, 1}; })
FARCALL_FUNCTION(bytes, [](std::vector<std::byte> data) {
  for (auto& b : data) b ^= std::byte{0xff};
  return data;
})
FARCALL_FUNCTION(nothing, []() {})
FARCALL_FUNCTION(again, []() { return ++counter; })
FARCALL_FUNCTION(processors, []() {
  cpu_set_t set;
  sched_getaffinity(0, sizeof set, &set);
  std::vector<int> found;
  for (int i = 0; i < CPU_SETSIZE; ++i)
    if (CPU_ISSET(i, &set)) found.push_back(i);
  return found;
})
FARCALL_FUNCTION(pid, []() { return static_cast<int>(getpid()); })
FARCALL_FUNCTION(where, []() {
  char directory[4096];
  const char* x = std::getenv("X");
  return std::vector<std::string>{getcwd(directory, sizeof directory), x == nullptr ? "" : x,
                                  std::getenv("FARCALL_TASK_ID")};
})
FARCALL_FUNCTION(throws, [](const std::string& what) -> int { throw Unstable(what); })
FARCALL_FUNCTION(throws_int, []() -> int { throw 42; })
FARCALL_FUNCTION(crash, []() {
  std::fprintf(stderr, "about to crash\n");
  std::signal(SIGSEGV, SIG_DFL);  // a sanitizer would report it and exit
  std::raise(SIGSEGV);
})
FARCALL_FUNCTION(leave, [](int code) { _exit(code); })
FARCALL_FUNCTION(sleeps, [](double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
})
FARCALL_FUNCTION(steps, [](int n) {
  for (int i = 1; i <= n; ++i) {
    farcall::progress(i, n, "step " + std::to_string(i));
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
  }
  return n;
})
FARCALL_FUNCTION(eat, [](int mib) {
  std::vector<std::vector<char>> all;
  for (int i = 0; i < mib; ++i) all.emplace_back(1 << 20, 'x');
  std::this_thread::sleep_for(std::chrono::seconds(60));
  return static_cast<int>(all.size());
})
FARCALL_FUNCTION(daemon, [](const std::string& path) {
  if (fork() == 0) {
    setsid();
    if (fork() == 0) {
      std::ofstream(path + ".tmp") << getpid() << std::flush;
      std::rename((path + ".tmp").c_str(), path.c_str());
      sleep(1000);
    }
    _exit(0);
  }
  wait(nullptr);
  while (!std::ifstream(path)) usleep(1000);
})

// As an old header would have made it.
extern "C" __attribute__((visibility("default"), used))
const farcall_function farcall_function_outdated = {0, sizeof(farcall_function), "outdated",
                                                    "GCC 1", nullptr};
