// Clients and an interchange that lose messages, repeat them and reconnect, on a relay that is
// killed at any moment: whatever was acknowledged is there at the end, and ended once.
#include "rig.h"

namespace farcall::relay {
namespace {

constexpr std::uint32_t kChunk = 7, kChunks = 9;

struct Work {  // of one submission, as its client knows it
  SubmissionHeader header;
  RangeSet acknowledged;
  bool sealed = false;
  std::map<std::uint32_t, TaskOutcome> outcomes;
};

struct World : Rig {
  explicit World(std::uint64_t seed) : chance(seed) { auto_commit = false; }

  Rng chance;
  PeerId client_peer = 0, x = 0;
  EndpointId e;
  FunctionId f;
  std::vector<Work> all;
  std::map<std::pair<SubmissionId, std::uint32_t>, bool> held;  // at the interchange
  std::map<std::uint64_t, wire::SubmissionOutcomes> spool;      // not acknowledged
  std::uint64_t granted = 0, granted_client = 0;
  std::uint64_t recorded = 0;

  bool one_in(std::uint64_t n) { return chance.below(n) == 0; }

  void prepare() {
    auto_commit = true;
    client_peer = client();
    f = function(client_peer);
    e = endpoint(client_peer);
    auto_commit = false;
    for (int i = 0; i < 3; ++i) all.push_back({header(e, f), {}, false, {}});
  }
  void connect_client() {
    if (client_peer != 0) apply(core->gone(client_peer, now));
    client_peer = client();
    granted_client = 0;
  }
  void connect_interchange() {
    HelloOptions o;
    std::map<SubmissionId, RangeSet> ranges;
    for (const auto& [task, ignored] : held) ranges[task.first].insert(task.second);
    for (const auto& [id, set] : ranges) o.holds.push_back({id, set});
    x = interchange(e, o);
    granted = 0;
  }
  void send_spool() {
    for (const auto& [batch, part] : spool) {
      std::string data;
      for (const TaskOutcome& o : part.outcomes) data += std::string(o.data_size, 'x');
      send(x, wire::Results{batch, {part}}, {Bytes(data)});
    }
  }
  void take_all() {
    if (!take<wire::EndpointWelcome>(x).empty()) send_spool();
    for (const auto& [id, ranges] : work(x))
      ranges.for_each([&, sub = id](std::uint32_t i) { held[{sub, i}] = true; });
    for (std::uint64_t batch : acked(x)) spool.erase(batch);
    for (const auto& m : take<wire::CancelTasks>(x))
      for (const auto& item : m.items)
        item.ranges.for_each([&](std::uint32_t i) {
          if (held.erase({item.submission, i}) != 0)
            spool[++batches] = {item.submission, {outcome(i, TaskState::kCancelled)}};
        });
    for (const auto& m : take<wire::SubmitAck>(client_peer))
      for (const auto& result : m.results) {
        ASSERT_EQ(result.error, 0) << result.text;
        for (Work& w : all)
          if (w.header.submission == result.submission) {
            w.acknowledged.insert(result.received);
            w.sealed |= result.sealed;
          }
      }
    for (const auto& m : take<wire::TaskResults>(client_peer))
      for (const auto& part : m.results)
        for (Work& w : all)
          if (w.header.submission == part.submission)
            for (const TaskOutcome& o : part.outcomes) {
              auto [place, added] = w.outcomes.emplace(o.index, o);
              EXPECT_EQ(place->second.state, o.state) << "a task has two outcomes";
            }
  }
  void act() {
    Work& w = all[chance.below(all.size())];
    switch (chance.below(14)) {
      case 0:
      case 1: {
        const auto chunk = static_cast<std::uint32_t>(chance.below(kChunks));
        submit(client_peer, w.header, chunk * kChunk, kChunk, false);
        break;
      }
      case 2: {
        RangeSet have;
        for (const auto& [index, o] : w.outcomes) have.insert(index);
        send(client_peer, wire::Watch{{{w.header.submission, have, true, false}}});
        break;
      }
      case 3:
        send(client_peer, wire::Credit{granted_client += chance.below(20), 1 << 20});
        break;
      case 4:
        grant(x, granted += chance.below(15), 1 << 20);
        break;
      case 5:
      case 6:
      case 7:
        finish_some();
        break;
      case 8:
        commit();
        break;
      case 9:
        run_loads();
        break;
      case 10:
        pass(std::chrono::milliseconds(chance.below(200)));
        break;
      case 11:
        if (one_in(6)) connect_client();
        break;
      case 12:
        if (one_in(4)) connect_interchange();
        break;
      case 13:
        break_something(w);
        break;
    }
    take_all();
  }
  void finish_some() {
    if (held.empty()) return;
    auto it = held.begin();
    std::advance(it, chance.below(held.size()));
    const auto [id, index] = it->first;
    const TaskState state = one_in(5) ? TaskState::kFailed : TaskState::kSucceeded;
    spool[++batches] = {id, {outcome(index, state)}};
    // Sometimes it is run twice, with another end.
    if (!one_in(6)) held.erase(it);
    const auto& part = spool[batches];
    if (!one_in(4)) send(x, wire::Results{batches, {part}}, {Bytes("xx")});
  }
  void break_something(Work& w) {
    switch (chance.below(12)) {
      case 0:
      case 1:
        recorded = 0;
        restart();
        client_peer = 0;
        connect_client();
        connect_interchange();
        break;
      case 2:  // the interchange forgets all but its spool
        held.clear();
        connect_interchange();
        break;
      case 3: {
        const auto task = static_cast<std::uint32_t>(chance.below(kChunk * kChunks));
        if (w.acknowledged.contains(task))
          send(
              client_peer, wire::Call{++requests, "task.cancel"},
              {Bytes(
                  nlohmann::json{{"tasks", {TaskId{w.header.submission, task}.string()}}}.dump())});
        break;
      }
      default:
        break;
    }
  }
  // From here on nothing is lost, and everybody goes on until all is done.
  void settle_all() {
    auto_commit = true;
    settle();
    connect_client();
    connect_interchange();
    send(client_peer, wire::Credit{1 << 20, 1 << 30});
    for (Work& w : all) {
      for (std::uint32_t chunk = 0; chunk < kChunks; ++chunk)
        submit(client_peer, w.header, chunk * kChunk, kChunk, chunk + 1 == kChunks);
      RangeSet have;
      for (const auto& [index, o] : w.outcomes) have.insert(index);
      send(client_peer, wire::Watch{{{w.header.submission, have, true, false}}});
    }
    grant(x, 1 << 20);
    for (int turn = 0; turn < 1000 && !done(); ++turn) {
      take_all();
      send_spool();
      for (int i = 0; i < 20; ++i) finish_some();
    }
    take_all();
    send_spool();  // what finish_some() kept back in the last turn
    take_all();
  }
  bool done() {
    for (const Work& w : all)
      if (w.outcomes.size() < kChunk * kChunks) return false;
    return true;
  }
};

class RelayRandom : public ::testing::TestWithParam<std::uint64_t> {};

TEST_P(RelayRandom, NothingAcknowledgedIsLostAndEachTaskEndsOnce) {
  World world(GetParam());
  world.prepare();
  world.connect_interchange();
  for (int step = 0; step < 1500; ++step) {
    world.act();
    if (::testing::Test::HasFatalFailure()) return;
  }
  // What was acknowledged is known to a relay that has only what was committed.
  world.restart();
  const auto state = *world.store.load();
  for (const Work& w : world.all) {
    RangeSet stored;
    for (const LoadedSubmission& s : state.submissions) {
      if (s.record.header.submission != w.header.submission) continue;
      for (const ChunkRecord& c : s.chunks)
        stored.insert({c.first, c.first + static_cast<std::uint32_t>(c.sizes.size())});
    }
    EXPECT_TRUE(w.acknowledged.difference(stored).empty()) << "acknowledged and lost";
    for (const LoadedSubmission& s : state.submissions) {
      if (s.record.header.submission != w.header.submission) continue;
      for (const auto& [index, o] : w.outcomes)
        EXPECT_TRUE(s.by_state[state_slot(o.state)].contains(index)) << "shown and lost";
    }
  }
  world.client_peer = 0;
  world.settle_all();
  EXPECT_TRUE(world.done());
  EXPECT_TRUE(world.spool.empty()) << "a batch was never acknowledged";
  const auto list = world.call(world.client_peer, "submission.list", nlohmann::json::object());
  for (const auto& s : list["submissions"])
    EXPECT_EQ(s["succeeded"].get<int>() + s["failed"].get<int>() + s["cancelled"].get<int>(),
              s["received"].get<int>());
}

INSTANTIATE_TEST_SUITE_P(Seeds, RelayRandom, ::testing::Range<std::uint64_t>(1, 41));

}  // namespace
}  // namespace farcall::relay
