// The agent, and the program, against an interchange that the test plays over real sockets.
#include "pilot/agent/agent.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "pilot/agent/node.h"
#include "pilot/runners/process.h"
#include "wire/codec.h"
#include "wire/shell_result.h"
#include "wire/zmq/listener.h"

namespace farcall::pilot {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
namespace fs = std::filesystem;

const SubmissionId kPythonWork{{1}};
const SubmissionId kShellWork{{2}};

class FakeInterchange {
 public:
  FakeInterchange(wire::Loop& l) : loop(l) { open("tcp://127.0.0.1:0"); }

  void open(const std::string& address) {
    wire::ListenerOptions options;
    options.address = address;
    options.keys = keys;
    auto opened = wire::Listener::open(
        loop, options,
        {[this](wire::PeerId id, const std::string& key, const wire::Message& message) {
           on_hello(id, key, message);
         },
         [this](wire::PeerId, const wire::Message& message) { on_message(message); },
         [this](wire::PeerId id) {
           if (id == peer) peer = 0;
         }});
    ASSERT_TRUE(opened) << opened.error().message;
    listener = std::move(*opened);
  }
  void on_hello(wire::PeerId id, const std::string& key, const wire::Message& message) {
    if (!refusal.empty()) return listener->refuse(id, {ErrorCode::kDenied, refusal});
    EXPECT_EQ(key, pilot_keys.public_key);
    auto hello = wire::decode<wire::PilotHello>(message);
    ASSERT_TRUE(hello);
    hellos.push_back(*hello);
    peer = id;
    wire::PilotWelcome welcome;
    welcome.epoch = 1;
    welcome.slots = hello->cores;
    welcome.heartbeat_ms = 200;
    listener->send(id, wire::make_message(welcome));
  }
  void on_message(const wire::Message& message) {
    ++seen[message.type];
    if (message.type == wire::MessageType::kHandBack) {
      auto back = wire::decode<wire::HandBack>(message);
      for (const auto& ref : back->attempts) handed_back.push_back(ref);
    }
    if (message.type != wire::MessageType::kResults) return;
    auto results = wire::decode<wire::Results>(message);
    std::size_t offset = 0;
    for (const auto& item : results->results)
      for (const auto& outcome : item.outcomes) {
        outcomes[{item.submission, outcome.index}] = {
            outcome, message.payload.at(0).slice(offset, outcome.data_size).string()};
        offset += outcome.data_size;
      }
    if (acknowledge) listener->send(peer, wire::make_message(wire::ResultsAck{{results->batch}}));
  }
  void dispatch(const SubmissionId& submission, FunctionKind kind, const json& body,
                std::vector<json> arguments, std::uint32_t first = 0) {
    wire::Dispatch message;
    FunctionRecord function{FunctionId{submission.bytes}, kind, "f", "{}"};
    SubmissionHeader header;
    header.submission = submission;
    header.function = function.id;
    message.functions.push_back(function);
    message.submissions.push_back(header);
    wire::DispatchGroup group{submission, {}};
    std::string all;
    for (const json& one : arguments) {
      const std::string text = "J" + one.dump();
      group.tasks.push_back({first++, 1, static_cast<std::uint32_t>(text.size())});
      all += text;
    }
    message.groups.push_back(group);
    ASSERT_TRUE(
        listener->send(peer, wire::make_message(message, {Bytes(body.dump()), Bytes(all)})));
  }
  void shell(const std::string& cmd, std::uint32_t index) {
    dispatch(kShellWork, FunctionKind::kShell, {{"cmd", cmd}}, {json::object()}, index);
  }

  wire::Loop& loop;
  KeyPair keys = make_key_pair(), pilot_keys = make_key_pair();
  std::unique_ptr<wire::Listener> listener;
  wire::PeerId peer = 0;
  std::string refusal;
  bool acknowledge = true;
  std::vector<wire::PilotHello> hellos;
  std::map<wire::MessageType, int> seen;
  std::map<std::pair<SubmissionId, std::uint32_t>, std::pair<TaskOutcome, std::string>> outcomes;
  std::vector<wire::AttemptRef> handed_back;
};

class AgentTest : public testing::Test {
 protected:
  AgentTest() {
    char name[] = "/tmp/farcall-agent-test-XXXXXX";
    directory_ = mkdtemp(name);
  }
  ~AgentTest() override {
    agent_.reset();
    fs::remove_all(directory_);
  }
  json credentials() {
    return {{"addresses", {"tcp://127.0.0.1:1", interchange_.listener->address()}},
            {"server_key", interchange_.keys.public_key},
            {"public_key", interchange_.pilot_keys.public_key},
            {"secret_key", interchange_.pilot_keys.secret_key},
            {"block_id", "00000000-0000-7000-8000-000000000001"},
            {"slots", 2},
            {"runner_directory", FARCALL_TEST_RUNNER_DIRECTORY}};
  }
  fs::path write_credentials() {
    const fs::path path = directory_ / "credentials";
    EXPECT_TRUE(write_file(path, credentials().dump(), 0600));
    return path;
  }
  void start_agent() {
    auto read = read_credentials(write_credentials());
    ASSERT_TRUE(read) << read.error().message;
    AgentOptions options;
    options.credentials = *read;
    options.node_rank = 3;
    options.job_start = "first";
    options.scratch_root = directory_;
    options.software = "farcall test";
    auto agent = Agent::make(loop_, options);
    ASSERT_TRUE(agent) << agent.error().message;
    agent_ = std::move(*agent);
    ASSERT_TRUE(until([&] { return interchange_.peer != 0; }));
  }
  pid_t start_program() {
    Spawn what;
    what.argv = {FARCALL_TEST_PILOT, "--credentials", write_credentials().string()};
    what.environment = process_environment();
    what.environment["TMPDIR"] = directory_.string();
    errors_ = directory_ / "stderr";
    const int fd = ::open(errors_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    what.err = fd;
    auto pid = spawn(what);
    close(fd);
    EXPECT_TRUE(pid);
    return pid ? *pid : -1;
  }
  std::optional<int> exit_of(pid_t pid) {
    int status = 0;
    const bool ended = until([&] { return waitpid(pid, &status, WNOHANG) == pid; });
    if (!ended) {
      kill(pid, SIGKILL);
      waitpid(pid, &status, 0);
      return std::nullopt;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  bool until(const std::function<bool()>& done, Duration limit = 30s) {
    const MonoTime deadline = read_clock().mono + limit;
    while (!done()) {
      if (read_clock().mono > deadline) return false;
      loop_.run_once(20ms);
    }
    return true;
  }
  bool has(const SubmissionId& submission, std::uint32_t index) {
    return interchange_.outcomes.contains({submission, index});
  }
  std::string data(const SubmissionId& submission, std::uint32_t index) {
    return interchange_.outcomes[{submission, index}].second;
  }

  fs::path directory_, errors_;
  wire::Loop loop_;
  FakeInterchange interchange_{loop_};
  std::unique_ptr<Agent> agent_;
};

TEST_F(AgentTest, RunsPythonAndShellTasksAndSaysWhatItIs) {
  start_agent();
  const wire::PilotHello& hello = interchange_.hellos.at(0);
  EXPECT_EQ(hello.block.string(), "00000000-0000-7000-8000-000000000001");
  EXPECT_EQ(hello.node_rank, 3u);
  EXPECT_EQ(hello.job_start, "first");
  EXPECT_EQ(hello.cores, 2u);
  EXPECT_GT(hello.memory_mib, 0u);
  std::vector<json> arguments;
  for (int i = 0; i < 20; ++i) arguments.push_back({{"args", {i}}});
  interchange_.dispatch(kPythonWork, FunctionKind::kPythonSource,
                        {{"entry", "f"}, {"source", "def f(x):\n  return x * x\n"}}, arguments);
  interchange_.shell("echo hello; exit 4", 0);
  ASSERT_TRUE(until([&] { return interchange_.outcomes.size() == 21; }));
  for (std::uint32_t i = 0; i < 20; ++i)
    EXPECT_EQ(data(kPythonWork, i), "J" + std::to_string(i * i));
  auto shell = wire::decode<wire::ShellResult>(Bytes(data(kShellWork, 0).substr(1)));
  ASSERT_TRUE(shell);
  EXPECT_EQ(shell->out, "hello\n");
  EXPECT_EQ((interchange_.outcomes[{kShellWork, 0}].first.exit_code), 4);
  EXPECT_TRUE(until([&] { return interchange_.seen[wire::MessageType::kPilotStatus] >= 2; }));
}

TEST_F(AgentTest, CancelKillsAndIsAnswered) {
  start_agent();
  interchange_.shell("sleep 1000", 0);
  ASSERT_TRUE(until([&] { return interchange_.seen[wire::MessageType::kRunning] > 0; }));
  interchange_.listener->send(interchange_.peer,
                              wire::make_message(wire::CancelAttempts{{{kShellWork, 0, 1}}}));
  ASSERT_TRUE(until([&] { return has(kShellWork, 0); }));
  EXPECT_EQ((interchange_.outcomes[{kShellWork, 0}].first.state), TaskState::kCancelled);
}

TEST_F(AgentTest, OutlivesItsInterchangeAndDeliversWhatWasDoneMeanwhile) {
  start_agent();
  const fs::path go = directory_ / "go", done = directory_ / "done";
  interchange_.shell("while ! test -e " + go.string() + "; do sleep 0.05; done; touch " +
                         done.string() + "; echo result",
                     0);
  ASSERT_TRUE(until([&] { return interchange_.seen[wire::MessageType::kRunning] > 0; }));
  const std::string address = interchange_.listener->address();
  interchange_.listener.reset();
  interchange_.peer = 0;
  std::ofstream(go).close();
  ASSERT_TRUE(until([&] { return fs::exists(done); }));
  interchange_.open(address);
  ASSERT_TRUE(until([&] { return has(kShellWork, 0); }));
  ASSERT_EQ(interchange_.hellos.size(), 2u);
  EXPECT_EQ(interchange_.hellos[1].holds.size() + interchange_.hellos[1].unacknowledged, 1u);
  EXPECT_EQ(interchange_.hellos[1].epoch, 1u);
  EXPECT_EQ(interchange_.hellos[1].pilot, interchange_.hellos[0].pilot);
}

TEST_F(AgentTest, UnacknowledgedResultsComeAgain) {
  start_agent();
  interchange_.acknowledge = false;
  interchange_.shell("echo x", 0);
  ASSERT_TRUE(until([&] { return has(kShellWork, 0); }));
  interchange_.outcomes.clear();
  interchange_.acknowledge = true;
  interchange_.listener->reset(interchange_.peer, "a gap");
  ASSERT_TRUE(until([&] { return has(kShellWork, 0); }));
  EXPECT_EQ(interchange_.hellos.back().unacknowledged, 1u);
}

TEST_F(AgentTest, StopHandsBackAndEnds) {
  start_agent();
  interchange_.shell("sleep 1000", 0);
  interchange_.shell("sleep 1000", 1);
  interchange_.shell("sleep 1000", 2);
  ASSERT_TRUE(until([&] { return interchange_.seen[wire::MessageType::kRunning] > 0; }));
  interchange_.listener->send(interchange_.peer, wire::make_message(wire::Stop{"idle", 100}));
  ASSERT_TRUE(until([&] { return agent_->end().has_value(); }));
  EXPECT_TRUE(until([&] { return interchange_.handed_back.size() == 3; }));
  EXPECT_EQ(agent_->end()->code, 0);
  const fs::path scratch = agent_->scratch();
  EXPECT_TRUE(fs::exists(scratch));
  agent_.reset();
  EXPECT_FALSE(fs::exists(scratch));
  EXPECT_TRUE(descendants_of(getpid()).empty());
}

TEST_F(AgentTest, ADaemonOfAPythonTaskIsSweptOnceTheTaskIsOver) {
  start_agent();
  interchange_.dispatch(
      kPythonWork, FunctionKind::kPythonSource,
      {{"entry", "f"},
       {"source",
        "import subprocess\ndef f():\n  return int(subprocess.check_output(['bash', '-c', "
        "'setsid sleep 1000 >/dev/null 2>&1 & echo $!']))\n"}},
      {json::object()});
  ASSERT_TRUE(until([&] { return has(kPythonWork, 0); }));
  ASSERT_EQ(data(kPythonWork, 0)[0], 'J') << data(kPythonWork, 0);
  const pid_t daemon = std::stoi(data(kPythonWork, 0).substr(1));
  EXPECT_TRUE(until([&] { return kill(daemon, 0) != 0; }));
}

TEST_F(AgentTest, TheProgramEndsWellOnSigterm) {
  const pid_t pid = start_program();
  ASSERT_TRUE(until([&] { return interchange_.peer != 0; }));
  interchange_.shell("sleep 1000", 0);
  interchange_.shell("echo quick", 1);
  ASSERT_TRUE(until([&] { return has(kShellWork, 1); }));
  kill(pid, SIGTERM);
  EXPECT_EQ(exit_of(pid), 0);
  EXPECT_TRUE(until([&] { return interchange_.handed_back.size() == 1; }));
  for (const auto& entry : fs::directory_iterator(directory_))
    EXPECT_FALSE(entry.path().filename().string().starts_with("farcall-")) << entry.path();
}

TEST_F(AgentTest, AProgramThatIsKilledLeavesNothingBehind) {
  const pid_t guard = start_program();
  ASSERT_TRUE(until([&] { return interchange_.peer != 0; }));
  const fs::path pids = directory_ / "pids";
  interchange_.shell("setsid -f sh -c 'echo $$ >>" + pids.string() +
                         "; exec sleep 1000' </dev/null >/dev/null 2>&1; sh -c 'echo $$ >>" +
                         pids.string() + "; exec sleep 1000'; true",
                     0);
  std::vector<pid_t> left;
  ASSERT_TRUE(until([&] {
    left.clear();
    std::ifstream file(pids);
    for (pid_t pid; file >> pid;) left.push_back(pid);
    return left.size() == 2;
  }));
  const auto pilots = children_of(guard);
  ASSERT_EQ(pilots.size(), 1u);
  kill(pilots[0], SIGKILL);
  EXPECT_EQ(exit_of(guard), 128 + SIGKILL);
  for (pid_t pid : left) EXPECT_TRUE(until([&] { return kill(pid, 0) != 0; })) << pid;
}

TEST_F(AgentTest, TheProgramSaysWhyItWasRefused) {
  interchange_.refusal = "block 17 has ended";
  const pid_t pid = start_program();
  EXPECT_EQ(exit_of(pid), error_exit_code(ErrorCode::kDenied));
  EXPECT_NE(read_file(errors_)->find("the interchange refused this pilot: block 17 has ended"),
            std::string::npos);
}

TEST_F(AgentTest, CredentialsAreCheckedBeforeAnythingElse) {
  const fs::path path = directory_ / "credentials";
  EXPECT_EQ(read_credentials(path).error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(write_file(path, "{}", 0644));
  EXPECT_EQ(read_credentials(path).error().code, ErrorCode::kDenied);
  ASSERT_TRUE(write_file(path, "{}", 0600));
  EXPECT_NE(read_credentials(path).error().message.find("addresses"), std::string::npos);
}

TEST(Node, QuotasAreRoundedUp) {
  EXPECT_EQ(cores_of_quota("max 100000"), std::nullopt);
  EXPECT_EQ(cores_of_quota("200000 100000"), 2u);
  EXPECT_EQ(cores_of_quota("150000 100000"), 2u);
  EXPECT_EQ(cores_of_quota("1000 100000"), 1u);
  EXPECT_EQ(cores_of_quota("rubbish"), std::nullopt);
  EXPECT_GE(usable_cores(), 1u);
}

}  // namespace
}  // namespace farcall::pilot
