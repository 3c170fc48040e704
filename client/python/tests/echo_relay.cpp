// A relay for the tests of the Python module: speaks the real protocol over real sockets, and has a
// worker of its own whose every result is the bytes of the task's arguments.
//
//   echo_relay HOME   writes HOME/identity, prints its address, ends when standard input does
#include <unistd.h>

#include <cstdio>
#include <map>
#include <set>

#include "base/files.h"
#include "farcall/client.h"
#include "farcall/identity.h"
#include "wire/codec.h"
#include "wire/zmq/listener.h"

namespace farcall {
namespace {

struct Submission {
  std::map<std::uint32_t, Bytes> arguments;
  bool sealed = false;
};

class EchoRelay {
 public:
  EchoRelay(wire::Loop& loop, const std::filesystem::path& home) {
    const KeyPair keys = make_key_pair();
    wire::ListenerHandlers handlers;
    handlers.on_hello = [this](wire::PeerId peer, const std::string&, const wire::Message&) {
      listener_->send(peer, wire::make_message(wire::ClientWelcome{"echo", "ada", "1", 1 << 20}));
      watched_.clear();
    };
    handlers.on_message = [this](wire::PeerId peer, const wire::Message& m) { serve(peer, m); };
    handlers.on_gone = [](wire::PeerId) {};
    auto opened =
        wire::Listener::open(loop, {.address = "tcp://127.0.0.1:0", .keys = keys}, handlers);
    FARCALL_CHECK(opened.has_value(), "the test's relay cannot listen");
    listener_ = std::move(*opened);
    const Identity identity{listener_->address(), keys.public_key, make_key_pair(), "ada"};
    FARCALL_CHECK(write_identity(home / "identity", identity).has_value(), "no identity written");
  }

  const std::string& address() const { return listener_->address(); }

 private:
  void serve(wire::PeerId peer, const wire::Message& message) {
    switch (message.type) {
      case wire::MessageType::kCall:
        return answer(peer, *wire::decode<wire::Call>(message));
      case wire::MessageType::kRegisterFunction: {
        const auto request = *wire::decode<wire::RegisterFunction>(message);
        const FunctionId id =
            function_id(request.function.kind, request.function.name, message.payload.at(0).view());
        return reply(peer, request.request, R"({"function_id": ")" + id.string() + "\"}");
      }
      case wire::MessageType::kSubmit:
        return submit(peer, message);
      case wire::MessageType::kWatch: {
        const wire::Watch request = *wire::decode<wire::Watch>(message);
        for (const auto& item : request.items) watch(peer, item);
        return;
      }
      default:
        return;  // credit, collected
    }
  }

  void reply(wire::PeerId peer, std::uint64_t request, std::string json) {
    listener_->send(peer,
                    wire::make_message(wire::Reply{request, 0, ""}, {Bytes(std::move(json))}));
  }

  void answer(wire::PeerId peer, const wire::Call& call) {
    if (call.method == "endpoint.list")
      return reply(peer, call.request,
                   R"({"endpoints": [{"name": "echo", "online": true,
                       "endpoint_id": "0190c0de-0000-7000-8000-000000000001"}]})");
    if (call.method == "whoami") return reply(peer, call.request, R"({"user": "ada"})");
    const wire::Reply refused{call.request, static_cast<int>(ErrorCode::kNotFound),
                              "the echo relay has no method " + call.method};
    listener_->send(peer, wire::make_message(refused));
  }

  void submit(wire::PeerId peer, const wire::Message& message) {
    wire::SubmitAck ack;
    std::size_t frame = 0;
    const auto parts = wire::decode<wire::Submit>(message)->parts;
    for (const wire::SubmitPart& part : parts) {
      Submission& submission = submissions_[part.submission];
      wire::SubmitResult result{part.submission, {}, part.seal, 0, ""};
      for (const wire::ChunkMeta& chunk : part.chunks) {
        const Bytes& data = message.payload.at(frame++);
        std::size_t offset = 0;
        for (std::uint32_t i = 0; i < chunk.sizes.size(); ++i) {
          submission.arguments[chunk.first + i] = data.slice(offset, chunk.sizes[i]);
          offset += chunk.sizes[i];
          result.received.insert(chunk.first + i);
        }
      }
      submission.sealed |= part.seal;
      ack.results.push_back(std::move(result));
    }
    listener_->send(peer, wire::make_message(ack));
    for (const wire::SubmitPart& part : parts)
      if (watched_.contains(part.submission)) deliver(peer, part.submission);
  }

  void watch(wire::PeerId peer, const wire::WatchItem& item) {
    if (item.stop) {
      watched_.erase(item.submission);
      return;
    }
    watched_[item.submission] = item.have;
    deliver(peer, item.submission);
  }

  void deliver(wire::PeerId peer, const SubmissionId& id) {
    auto found = submissions_.find(id);
    wire::ProgressItem progress;
    progress.submission = id;
    if (found == submissions_.end()) {
      progress.error = static_cast<int>(ErrorCode::kNotFound);
      listener_->send(peer, wire::make_message(wire::Progress{{progress}}));
      return;
    }
    wire::SubmissionOutcomes outcomes{id, {}};
    std::string data;
    for (const auto& [index, arguments] : found->second.arguments) {
      if (watched_[id].contains(index)) continue;
      watched_[id].insert(index);
      TaskOutcome outcome;
      outcome.index = index;
      outcome.host = "echo";
      outcome.data_size = arguments.size();
      data += arguments.view();
      outcomes.outcomes.push_back(outcome);
    }
    if (!outcomes.outcomes.empty())
      listener_->send(peer, wire::make_message(wire::TaskResults{{outcomes}}, {Bytes(data)}));
    progress.received = static_cast<std::uint32_t>(found->second.arguments.size());
    progress.sealed = found->second.sealed;
    progress.succeeded = progress.received;
    listener_->send(peer, wire::make_message(wire::Progress{{progress}}));
  }

  std::unique_ptr<wire::Listener> listener_;
  std::map<SubmissionId, Submission> submissions_;
  std::map<SubmissionId, RangeSet> watched_;  // with what was delivered
};

}  // namespace
}  // namespace farcall

int main(int argc, char** argv) {
  if (argc != 2) return 64;
  farcall::wire::Loop loop;
  farcall::EchoRelay relay(loop, argv[1]);
  std::printf("%s\n", relay.address().c_str());
  std::fflush(stdout);
  loop.add_fd(STDIN_FILENO, [&] {
    char byte;
    if (::read(STDIN_FILENO, &byte, 1) <= 0) loop.stop();
  });
  loop.run();
  return 0;
}
