// The program itself, with a client and an interchange over real sockets, killed in between.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/keys.h"
#include "wire/codec.h"
#include "wire/messages.h"
#include "wire/zmq/dialer.h"

namespace farcall::relay {
namespace {

using nlohmann::json;

struct Program {
  Program(const std::filesystem::path& home, const std::string& listen) {
    int ready[2];
    if (::pipe(ready) != 0) return;
    pid = ::fork();
    if (pid == 0) {
      ::close(ready[0]);
      ::dup2(ready[1], 9);
      if (ready[1] != 9) ::close(ready[1]);
      ::setenv("USER", "ann", 1);
      const std::string log = (home / "relay.log").string();
      ::execl(FARCALL_RELAY, "farcall-relay", "--home", home.c_str(), "--listen", listen.c_str(),
              "--log", log.c_str(), "--ready-fd", "9", nullptr);
      ::_exit(127);
    }
    ::close(ready[1]);
    char c = 0;
    while (::read(ready[0], &c, 1) == 1) line += c;
    ::close(ready[0]);
  }
  ~Program() {
    if (pid > 0) stop(SIGKILL);
  }
  int stop(int signal) {
    ::kill(pid, signal);
    int status = 0;
    ::waitpid(pid, &status, 0);
    pid = -1;
    return status;
  }
  pid_t pid = -1;
  std::string line;
};

struct Side {
  Side(wire::Loop& l, const json& address, KeyPair keys, std::function<wire::Message()> hello)
      : loop(l) {
    wire::DialerOptions options;
    options.addresses = {address.at("address")};
    options.server_key = address.at("server_key");
    options.keys = std::move(keys);
    wire::DialerHandlers handlers;
    handlers.make_hello = std::move(hello);
    handlers.on_message = [this](const wire::Message& m) { inbox.push_back(m); };
    handlers.on_refused = [this](const Error& error) { refused = error; };
    handlers.on_down = [](const Error&) {};
    dialer = std::make_unique<wire::Dialer>(loop, options, std::move(handlers));
  }
  // The next message of that type, or nullopt after a generous while.
  template <class Body>
  std::optional<std::pair<Body, std::vector<Bytes>>> wait() {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (std::chrono::steady_clock::now() < deadline) {
      for (auto it = inbox.begin(); it != inbox.end(); ++it)
        if (it->type == Body::kType) {
          std::pair<Body, std::vector<Bytes>> found{*wire::decode<Body>(*it), it->payload};
          inbox.erase(it);
          return found;
        }
      loop.run_once(std::chrono::milliseconds(20));
    }
    return std::nullopt;
  }
  json call(const std::string& method, const json& p) {
    dialer->send(wire::make_message(wire::Call{++requests, method}, {Bytes(p.dump())}));
    auto reply = wait<wire::Reply>();
    if (!reply) return "no reply";
    if (reply->first.error != 0) return reply->first.text;
    return json::parse(reply->second.at(0).view());
  }
  wire::Loop& loop;
  std::vector<wire::Message> inbox;
  std::optional<Error> refused;
  std::uint64_t requests = 0;
  std::unique_ptr<wire::Dialer> dialer;
};

struct RelayProgram : ::testing::Test {
  RelayProgram() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "farcall-relay-XXXXXX").string();
    home = ::mkdtemp(pattern.data());
  }
  ~RelayProgram() override { std::filesystem::remove_all(home); }
  json read(const std::string& name) { return json::parse(*read_file(home / name)); }
  KeyPair owner() {
    const json identity = read("identity");
    return {identity.at("public_key"), identity.at("secret_key")};
  }
  std::unique_ptr<Side> client(wire::Loop& loop) {
    return std::make_unique<Side>(loop, read("relay/address"), owner(),
                                  [] { return wire::make_message(wire::ClientHello{}); });
  }
  std::filesystem::path home;
};

TEST_F(RelayProgram, KeepsWhatItAcknowledgedThroughAKillAndDeliversIt) {
  auto program = std::make_unique<Program>(home, "tcp://127.0.0.1:0");
  ASSERT_TRUE(program->line.starts_with("ready tcp://127.0.0.1:")) << program->line;
  const std::string address = read("relay/address").at("address");
  wire::Loop loop;
  auto ann = client(loop);
  ASSERT_EQ(ann->wait<wire::ClientWelcome>().value().first.user, "ann");
  wire::RegisterFunction function{1, {}};
  function.function.name = "f";
  ann->dialer->send(wire::make_message(function, {Bytes("body")}));
  const json f = json::parse(ann->wait<wire::Reply>().value().second.at(0).view());
  const KeyPair keys = make_key_pair();
  const json e = ann->call("endpoint.register", {{"name", "c"}, {"key", keys.public_key}});
  SubmissionHeader header;
  header.submission = SubmissionId{{1, 2, 3}};
  header.function = *FunctionId::parse(f.at("function_id").get<std::string>());
  header.endpoint = *EndpointId::parse(e.at("endpoint_id").get<std::string>());
  wire::SubmitPart part{header.submission, header, {{0, {1, 1, 1}}}, true, 3};
  ann->dialer->send(wire::make_message(wire::Submit{{part}}, {Bytes("abc")}));
  const auto ack = ann->wait<wire::SubmitAck>().value().first.results.at(0);
  ASSERT_EQ(ack.error, 0) << ack.text;
  EXPECT_EQ(ack.received.count(), 3u);
  program->stop(SIGKILL);
  ann.reset();

  program = std::make_unique<Program>(home, address);
  ASSERT_EQ(program->line, "ready " + address + "\n");
  ann = client(loop);
  ASSERT_TRUE(ann->wait<wire::ClientWelcome>());
  const json list = ann->call("submission.list", json::object());
  EXPECT_EQ(list.at("submissions").at(0).at("received"), 3);

  Side x(loop, read("relay/address"), keys, [&] {
    wire::EndpointHello hello;
    hello.endpoint = header.endpoint;
    hello.instance = InstanceId{{5}};
    return wire::make_message(hello);
  });
  EXPECT_EQ(x.wait<wire::EndpointWelcome>().value().first.epoch, 1u);
  x.dialer->send(wire::make_message(wire::Credit{100, 1 << 20}));
  const auto work = x.wait<wire::Work>().value();
  EXPECT_EQ(work.first.chunks.at(0).run.count(), 3u);
  EXPECT_EQ(work.second.back().view(), "abc");
  wire::Results results{1, {{header.submission, {}}}};
  for (std::uint32_t i = 0; i < 3; ++i) {
    TaskOutcome outcome;
    outcome.index = i;
    outcome.data_size = 1;
    results.results[0].outcomes.push_back(outcome);
  }
  x.dialer->send(wire::make_message(results, {Bytes("xyz")}));
  ASSERT_TRUE(x.wait<wire::ResultsAck>());
  ann->dialer->send(wire::make_message(wire::Credit{100, 1 << 20}));
  ann->dialer->send(wire::make_message(wire::Watch{{{header.submission, {}, true, false}}}));
  const auto got = ann->wait<wire::TaskResults>().value();
  EXPECT_EQ(got.first.results.at(0).outcomes.size(), 3u);
  EXPECT_EQ(got.second.at(0).view(), "xyz");
  const int status = program->stop(SIGTERM);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST_F(RelayProgram, ASecondOneOnTheSameHomeIsRefused) {
  Program first(home, "tcp://127.0.0.1:0");
  ASSERT_FALSE(first.line.empty());
  Program second(home, "tcp://127.0.0.1:0");
  EXPECT_TRUE(second.line.empty());
  int status = 0;
  ASSERT_EQ(::waitpid(second.pid, &status, 0), second.pid);
  second.pid = -1;
  EXPECT_EQ(WEXITSTATUS(status), error_exit_code(ErrorCode::kBusy));
}

TEST_F(RelayProgram, AStrangerIsRefusedWithAReason) {
  Program program(home, "tcp://127.0.0.1:0");
  wire::Loop loop;
  Side stranger(loop, read("relay/address"), make_key_pair(),
                [] { return wire::make_message(wire::ClientHello{}); });
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!stranger.refused && std::chrono::steady_clock::now() < deadline)
    loop.run_once(std::chrono::milliseconds(20));
  ASSERT_TRUE(stranger.refused);
  EXPECT_EQ(stranger.refused->code, ErrorCode::kDenied);
}

TEST_F(RelayProgram, ProblemsOfTheConfigurationAreToldWithTheirPlace) {
  ASSERT_TRUE(make_directory(home / "relay", 0700));
  ASSERT_TRUE(write_file(home / "relay" / "config.yaml", "listn: tcp://127.0.0.1:0\n"));
  Program program(home, "tcp://127.0.0.1:0");
  EXPECT_TRUE(program.line.empty());
  int status = 0;
  ASSERT_EQ(::waitpid(program.pid, &status, 0), program.pid);
  program.pid = -1;
  EXPECT_EQ(WEXITSTATUS(status), error_exit_code(ErrorCode::kConfig));
}

}  // namespace
}  // namespace farcall::relay
