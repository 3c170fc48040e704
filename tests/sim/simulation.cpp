#include "simulation.h"

namespace farcall::sim {

namespace effect = interchange::effect;

Simulation::Simulation(const Options& o) : options(o), rng(o.seed), relay(*this), scheduler(*this) {
  instance_ = make_id<InstanceId>(now().wall, rng);
  relay_link.on_reset = [this] {
    relay.session_lost();
    const auto mine = life_;
    after(between(0, 2000), [this, mine] {
      if (mine != life_) return;
      tell([&](Core& c) { c.relay_down(); });
      dial_relay(between(50, 2000));
    });
  };
}

void Simulation::after(Duration delay, std::function<void()> what) {
  events_.push({time_ + delay, ++numbers_, std::move(what)});
}

void Simulation::wrong(const std::string& what) {
  if (tally.error.empty())
    tally.error =
        fmt::format("at {:.3f} s: {}", std::chrono::duration<double>(time_).count(), what);
}

std::uint64_t Simulation::fate(const wire::AttemptRef& ref) const {
  std::uint64_t x = options.seed * 1000003 + ref.index * 7919ULL + ref.attempt * 104729ULL;
  for (auto byte : ref.submission.bytes) x = (x ^ byte) * 1099511628211ULL;
  x ^= x >> 31;
  x *= 0xbf58476d1ce4e5b9ULL;
  return x ^ (x >> 29);
}

void Simulation::reset(Link& link) {
  ++link.generation;
  ++tally.resets;
  if (link.on_reset) link.on_reset();
}

void Simulation::transmit(Link& link, int direction, std::function<void()> deliver) {
  if (faults() && chance(options.message_loss)) {
    reset(link);
    return;
  }
  const Duration delay = chance(0.01) ? between(100, 1500) : between(0, 20);
  Duration& last = link.last[direction];
  last = std::max(last, time_ + delay);
  after(last - time_, [&link, generation = link.generation, deliver = std::move(deliver)] {
    if (generation == link.generation) deliver();
  });
}

void Simulation::dial_relay(Duration delay) {
  const auto dial = ++dials_;
  after(delay, [this, dial, mine = life_] {
    if (mine != life_ || dial != dials_ || !core) return;
    if (!relay.up()) return dial_relay(between(500, 2000));
    ++relay_link.generation;
    auto hello = core->make_hello();
    pump();
    // Not welcomed in time: again.
    after(seconds(5), [this, dial, mine] {
      if (mine == life_ && dial == dials_ && core && !core->welcomed()) dial_relay(Duration{0});
    });
    transmit(relay_link, 0, [this, hello] { relay.hello(hello); });
  });
}

void Simulation::write(std::function<void()> apply, std::function<void(Core&)> answer) {
  last_write_ = std::max(last_write_, time_ + between(0, chance(0.01) ? 500 : 15));
  after(last_write_ - time_,
        [this, mine = life_, apply = std::move(apply), answer = std::move(answer)] {
          if (mine != life_) return;
          apply();
          if (answer) tell(answer);
        });
}

void Simulation::carry_out(interchange::Effect& any) {
  trace(any.index() + 1);
  std::visit(
      [this]<class E>(E& e) {
        if constexpr (std::is_same_v<E, effect::SendRelay>) {
          transmit(relay_link, 0, [this, m = std::move(e.message)] { relay.receive(m); });
        } else if constexpr (std::is_same_v<E, effect::RedialRelay>) {
          wrong("the core starts a new session with the relay: " + e.why);
        } else if constexpr (std::is_same_v<E, effect::SendPilot>) {
          write(
              [this, peer = e.peer, m = std::move(e.message)] {
                const auto found = peers_.find(peer);
                if (found == peers_.end()) return;
                PilotModel* pilot = found->second;
                transmit(pilot->link, 1, [pilot, m] { pilot->receive(m); });
              },
              {});
        } else if constexpr (std::is_same_v<E, effect::RefusePilot>) {
          wrong("a pilot is refused: " + e.error.message);
        } else if constexpr (std::is_same_v<E, effect::ResetPilot>) {
          if (e.why != "the interchange is not in charge yet" &&
              e.why != "nothing was heard for too long")
            wrong("a pilot's session is reset: " + e.why);
          if (const auto found = peers_.find(e.peer); found != peers_.end())
            reset(found->second->link);
        } else if constexpr (std::is_same_v<E, effect::SaveBlock>) {
          write([this, block = e.block] { disk_.blocks[block.id] = block; },
                [this, id = e.block.id, serial = e.serial](Core& c) {
                  c.block_saved(id, serial, now());
                });
        } else if constexpr (std::is_same_v<E, effect::SaveEpoch>) {
          write([this, epoch = e.epoch] { disk_.epoch = epoch; }, {});
        } else if constexpr (std::is_same_v<E, effect::SaveDurations>) {
          write(
              [this, functions = e.functions] {
                for (const auto& each : functions) disk_.durations[each.function] = each;
              },
              {});
        } else if constexpr (std::is_same_v<E, effect::SavePlacements>) {
          write(
              [this, e] {
                for (const auto& each : e.placed) disk_.placements[each.id] = each;
                for (auto id : e.dropped) disk_.placements.erase(id);
              },
              {});
        } else if constexpr (std::is_same_v<E, effect::Spool>) {
          write([this, record = e.record] { disk_.spool[record.batch] = record; },
                [batch = e.record.batch](Core& c) { c.spooled(batch); });
        } else if constexpr (std::is_same_v<E, effect::DropSpooled>) {
          write(
              [this, batches = e.batches] {
                for (auto batch : batches) disk_.spool.erase(batch);
              },
              {});
        } else if constexpr (std::is_same_v<E, effect::SubmitBlock>) {
          scheduler.submit(e);
        } else if constexpr (std::is_same_v<E, effect::QueryBlocks>) {
          scheduler.query(e.job_ids);
        } else if constexpr (std::is_same_v<E, effect::FindBlock>) {
          scheduler.find(e.block, e.job_name);
        } else if constexpr (std::is_same_v<E, effect::CancelJobs>) {
          scheduler.cancel(e.job_ids);
        } else if constexpr (std::is_same_v<E, effect::CollectLeft>) {
          // As the server does it: at once, what follows from it in the next turn.
          for (const auto& [file, each] : left[e.block]) {
            core->results_left(e.block, each.pilot, file, each.results, now());
            check();
          }
        } else if constexpr (std::is_same_v<E, effect::DropLeft>) {
          if (left[e.block].erase(e.file) == 0) wrong("a file is dropped that is not there");
          ++tally.left_taken;
        } else if constexpr (std::is_same_v<E, effect::Exit>) {
          exited_ = true;
          if (!e.text.starts_with("stopped: ")) wrong("exit: " + e.text);
        }
      },
      any);
}

void Simulation::pump() {
  ++tally.events;
  auto effects = core->take_effects(now());
  check();
  for (auto& each : effects) carry_out(each);
}

void Simulation::check() {
  ++tally.checks;
  if (const std::string what = core->sanity_check(); !what.empty()) wrong("sanity: " + what);
  if (core->queue().held_tasks() > options.window_tasks + recovered_tasks_)
    wrong(fmt::format("credit exceeded: {} tasks are held, the window is {}",
                      core->queue().held_tasks(), options.window_tasks));
}

void Simulation::boot() {
  interchange::Settings settings;
  settings.endpoint_name = "sim";
  settings.instance = instance_;
  settings.window_tasks = options.window_tasks;
  settings.lost_timeout = seconds(60);
  settings.slots_per_node = options.slots;
  settings.stop_limit = std::chrono::minutes(30);
  settings.prefetch = options.prefetch;
  settings.scaling.max_blocks = options.blocks;
  settings.scaling.nodes_per_block = options.nodes_per_block;
  settings.scaling.walltime_s = options.walltime_s;
  settings.scaling.max_idletime = seconds(30);
  core = std::make_unique<Core>(settings, Rng(rng.next()));
  interchange::Recovered state;
  state.epoch = disk_.epoch;
  for (const auto& [id, each] : disk_.durations) state.durations.push_back(each);
  for (const auto& [id, each] : disk_.blocks) state.blocks.push_back(each);
  for (const auto& [id, each] : disk_.placements) state.placements.push_back(each);
  for (const auto& [id, each] : disk_.spool) state.spool.push_back(each);
  if (life_ > 0) core->recover(state, now());
  for (const auto& [block, files] : left) {
    const auto* record = core->blocks().find(block);
    if (record != nullptr && !is_final(record->state)) continue;
    for (const auto& [file, each] : files)
      core->results_left(block, each.pilot, file, each.results, now());
  }
  recovered_tasks_ = core->queue().held_tasks();
  pump();
  dial_relay(between(10, 1000));
  tick();
}

void Simulation::crash() {
  if (!core || stopping_) return;
  ++tally.crashes;
  ++life_;
  core.reset();
  peers_.clear();
  ++relay_link.generation;
  relay.session_lost();
  last_write_ = time_;
  for (auto& pilot : pilots) pilot->interchange_died();
  after(between(200, 20'000), [this] { boot(); });
}

void Simulation::tick() {
  tell([&](Core& c) { c.tick(now()); });
  after(milliseconds(100), [this, mine = life_] {
    if (mine == life_) tick();
  });
}

void Simulation::plan(Duration mean, std::function<void()> fault) {
  if (mean == Duration{0}) return;
  const auto mean_ms = static_cast<int>(std::chrono::duration_cast<milliseconds>(mean).count());
  after(between(mean_ms / 5, mean_ms * 2), [this, mean, fault = std::move(fault)] {
    if (!faults() || stopping_) return;
    fault();
    plan(mean, fault);
  });
}

Tally Simulation::run() {
  relay.add_submissions();
  boot();
  plan(options.crash_every, [this] { crash(); });
  plan(options.outage_every, [this] { relay.outage(); });
  plan(options.pilot_kill_every, [this] { scheduler.kill_a_pilot(); });
  plan(options.cut_every, [this] { scheduler.cut_off_a_pilot(); });
  plan(options.cancel_every, [this] { relay.cancel_some(); });
  while (tally.error.empty() && !exited_ && !events_.empty()) {
    auto what = std::move(const_cast<Event&>(events_.top()).what);
    time_ = events_.top().at;
    events_.pop();
    trace(static_cast<std::uint64_t>(time_.count()));
    what();
    if (time_ > options.limit)
      wrong(stopping_ ? "it does not exit; jobs: " + scheduler.live_jobs()
                      : "not all tasks ended in time: " + relay.unfinished());
    if (!stopping_ && core && relay.all_final() && tally.error.empty()) {
      stopping_ = true;
      tell([&](Core& c) { c.stop("the simulation is over", now()); });
    }
  }
  if (tally.error.empty() && !scheduler.live_jobs().empty())
    wrong("jobs are left after the stop: " + scheduler.live_jobs());
  tally.virtual_time = time_;
  return tally;
}

}  // namespace farcall::sim
