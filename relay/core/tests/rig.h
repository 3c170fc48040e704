// A core on a store in memory, with hand-made clients and interchanges.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <nlohmann/json.hpp>

#include "base/keys.h"
#include "relay/core/core.h"
#include "relay/store/memory.h"
#include "wire/codec.h"
#include "wire/messages.h"

namespace farcall::relay {

class Rig {
 public:
  Rig() { start(); }
  ~Rig() { EXPECT_EQ(core->broken_invariant(), ""); }

  void start() {
    Options o = options;
    o.address = "tcp://relay:7400";
    o.server_key = std::string(40, 's');
    o.software = "farcall-relay test";
    o.seed = ++starts;
    o.make_token = [this] { return "token-" + std::to_string(++tokens); };
    core = std::make_unique<Core>(o, *store.load(), now);
    apply(core->enrol_owner("key-ann", "ann", now));
  }
  // What was not committed is lost.
  void restart() {
    waiting.clear();
    loads.clear();
    inbox.clear();
    core.reset();
    start();
  }
  void apply(Effects e) {
    if (!e.writes.empty()) waiting.emplace_back(e.ticket, std::move(e.writes));
    for (auto& m : e.messages) {
      if (auto* send = std::get_if<Send>(&m))
        inbox[send->peer].push_back(std::move(send->message));
      else
        refused[std::get<Refuse>(m).peer] = std::get<Refuse>(m).error;
    }
    for (auto& load : e.loads) loads.push_back(std::move(load));
    for (auto& blob : e.blobs) blob_effects.push_back(std::move(blob));
    wake_at = e.wake_at;
    ASSERT_EQ(core->broken_invariant(), "");
    if (auto_commit) settle();
  }
  void commit() {
    std::uint64_t ticket = 0;
    for (auto& [number, writes] : std::exchange(waiting, {})) {
      ASSERT_TRUE(store.commit(writes));
      ticket = number;
    }
    if (ticket != 0) apply(core->committed(ticket, now));
  }
  void run_loads() {
    for (auto& load : std::exchange(loads, {})) {
      if (auto* chunk = std::get_if<LoadChunk>(&load)) {
        auto data = store.load_chunk(chunk->submission, chunk->first);
        apply(core->chunk_loaded(chunk->submission, chunk->first,
                                 data ? std::optional<Bytes>(*data) : std::nullopt, now));
      } else {
        auto& rows = std::get<LoadRows>(load);
        apply(core->rows_loaded(
            rows.token,
            *store.load_rows(rows.submission, rows.wanted, rows.after_seq, rows.bytes_max), now));
      }
    }
  }
  void settle() {
    while (!waiting.empty() || !loads.empty()) {
      commit();
      run_loads();
    }
  }
  void pass(Duration time) {
    now.mono = now.mono + time;
    now.wall = now.wall + time;
    apply(core->tick(now));
  }

  PeerId client(const std::string& key = "key-ann", const std::string& invitation = "") {
    const PeerId peer = ++peers;
    apply(core->hello(peer, key, wire::make_message(wire::ClientHello{{}, invitation}), now));
    return peer;
  }
  template <class Body>
  void send(PeerId peer, const Body& body, std::vector<Bytes> payload = {}) {
    apply(core->message(peer, wire::make_message(body, std::move(payload)), now));
  }
  // All messages of that type that have come, and takes them away.
  template <class Body>
  std::vector<Body> take(PeerId peer) {
    std::vector<Body> found;
    std::vector<wire::Message> rest;
    for (wire::Message& m : inbox[peer]) {
      if (m.type == Body::kType)
        found.push_back(*wire::decode<Body>(m));
      else
        rest.push_back(std::move(m));
    }
    inbox[peer] = std::move(rest);
    return found;
  }
  // The answer, or {"error": code}.
  nlohmann::json call(PeerId peer, const std::string& method, const nlohmann::json& p) {
    send(peer, wire::Call{++requests, method}, {Bytes(p.dump())});
    return answer(peer, requests);
  }
  nlohmann::json answer(PeerId peer, std::uint64_t request) {
    auto& box = inbox[peer];
    for (auto it = box.begin(); it != box.end(); ++it) {
      if (it->type != wire::MessageType::kReply) continue;
      const auto reply = *wire::decode<wire::Reply>(*it);
      if (reply.request != request) continue;
      nlohmann::json result{{"error", reply.error}, {"text", reply.text}};
      if (reply.error == 0) result = nlohmann::json::parse(it->payload.at(0).view());
      box.erase(it);
      return result;
    }
    return nullptr;
  }
  FunctionId function(PeerId peer, const std::string& body = "body") {
    wire::RegisterFunction m{++requests, {}};
    m.function.name = "f";
    send(peer, m, {Bytes(body)});
    return *FunctionId::parse(answer(peer, requests).at("function_id").get<std::string>());
  }
  EndpointId endpoint(PeerId peer, const std::string& name = "cluster") {
    const auto r = call(peer, "endpoint.register", {{"name", name}, {"key", key_of(name)}});
    return *EndpointId::parse(r.at("endpoint_id").get<std::string>());
  }
  const std::string& key_of(const std::string& name) {
    auto& key = endpoint_keys[name];
    if (key.empty()) key = make_key_pair().public_key;
    return key;
  }
  SubmissionHeader header(EndpointId endpoint, FunctionId function, const std::string& owner = "") {
    SubmissionHeader h;
    h.submission = make_id<SubmissionId>(now.wall, rng);
    h.endpoint = endpoint;
    h.function = function;
    h.owner = owner;
    h.created_ms = now.wall.milliseconds_since_epoch();
    return h;
  }
  // Tasks [first, first + count) whose arguments are `size` times `letter`.
  void submit(PeerId peer, const SubmissionHeader& h, std::uint32_t first, std::uint32_t count,
              bool seal = false, char letter = 'a', std::uint32_t size = 3) {
    wire::SubmitPart part{h.submission, h, {}, seal, seal ? first + count : 0};
    std::vector<Bytes> payload;
    if (count > 0) {
      part.chunks.push_back({first, std::vector<std::uint32_t>(count, size)});
      payload.push_back(Bytes(std::string(std::size_t{count} * size, letter)));
    }
    send(peer, wire::Submit{{part}}, std::move(payload));
  }
  struct HelloOptions {
    InstanceId instance{{1}};
    bool take_over = false;
    std::vector<wire::SubmissionRanges> holds = {};
    std::string name = "cluster";
  };
  PeerId interchange(EndpointId endpoint, const HelloOptions& o) {
    const PeerId peer = ++peers;
    wire::EndpointHello hello;
    hello.hello.host = "login1";
    hello.hello.pid = 77;
    hello.endpoint = endpoint;
    hello.instance = o.instance;
    hello.take_over = o.take_over;
    hello.holds = o.holds;
    apply(core->hello(peer, key_of(o.name), wire::make_message(hello), now));
    return peer;
  }
  PeerId interchange(EndpointId endpoint) { return interchange(endpoint, HelloOptions{}); }
  void grant(PeerId peer, std::uint64_t tasks, std::uint64_t bytes = 1 << 30) {
    send(peer, wire::Credit{tasks, bytes});
  }
  // Of all Work that has come.
  std::map<SubmissionId, RangeSet> work(PeerId peer) {
    std::map<SubmissionId, RangeSet> got;
    for (const wire::Work& w : take<wire::Work>(peer))
      for (const wire::ChunkDelivery& c : w.chunks) {
        EXPECT_TRUE(got[c.submission].intersection(c.run).empty()) << "delivered twice";
        got[c.submission].insert(c.run);
      }
    return got;
  }
  static TaskOutcome outcome(std::uint32_t index, TaskState state = TaskState::kSucceeded,
                             std::uint16_t attempt = 1) {
    TaskOutcome o;
    o.index = index;
    o.state = state;
    o.attempt = attempt;
    o.host = "n1";
    o.failure = state == TaskState::kFailed ? FailureClass::kCrash : FailureClass::kNone;
    o.data_size = 2;
    return o;
  }
  void results(PeerId peer, SubmissionId id, std::vector<TaskOutcome> outcomes) {
    std::string data;
    for (const TaskOutcome& o : outcomes)
      data += std::string(o.data_size, static_cast<char>('A' + o.index % 26));
    send(peer, wire::Results{++batches, {{id, std::move(outcomes)}}}, {Bytes(data)});
  }
  std::vector<std::uint64_t> acked(PeerId peer) {
    std::vector<std::uint64_t> all;
    for (const auto& ack : take<wire::ResultsAck>(peer))
      all.insert(all.end(), ack.batches.begin(), ack.batches.end());
    return all;
  }
  std::map<std::uint32_t, TaskOutcome> outcomes(PeerId peer) {
    std::map<std::uint32_t, TaskOutcome> all;
    for (const auto& m : take<wire::TaskResults>(peer))
      for (const auto& part : m.results)
        for (const TaskOutcome& o : part.outcomes)
          EXPECT_TRUE(all.emplace(o.index, o).second) << "sent twice";
    return all;
  }
  wire::SubmitResult ack(PeerId peer) {
    auto acks = take<wire::SubmitAck>(peer);
    if (acks.empty() || acks.back().results.empty()) return {{}, {}, false, -1, "no ack"};
    return acks.back().results.back();
  }

  Options options;
  MemoryStore store;
  std::unique_ptr<Core> core;
  Now now{{std::chrono::hours(1)}, WallTime::from_milliseconds(1'800'000'000'000)};
  bool auto_commit = true;
  std::deque<std::pair<std::uint64_t, std::vector<Write>>> waiting;
  std::vector<std::variant<LoadChunk, LoadRows>> loads;
  std::vector<std::variant<PullBlob, ServeBlob, DropBlob>> blob_effects;
  std::map<PeerId, std::vector<wire::Message>> inbox;
  std::map<PeerId, Error> refused;
  std::optional<MonoTime> wake_at;
  std::map<std::string, std::string> endpoint_keys;
  Rng rng{7};
  std::uint64_t peers = 0, requests = 0, batches = 0, tokens = 0, starts = 0;
};

}  // namespace farcall::relay
