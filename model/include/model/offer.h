// What an endpoint can ever give a task, and whether a task asks for more. The interchange says the
// first to the relay, so that an impossible request is refused where it is made.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "model/task.h"

namespace farcall {

// What a node has to give.
struct Room {
  std::uint32_t slots = 0;  // free ones
  std::uint32_t slots_total = 0;
  std::uint32_t gpus = 0;
  std::uint64_t memory_mib = 0;
  bool operator==(const Room&) const = default;
};

// Cores and GPUs of a task with ranks are those of each rank, of another one those on each of its
// nodes. A task as a number of equal units (its ranks; or one for each of its nodes) to be laid on
// nodes.
struct Wish {
  std::uint32_t units = 1;
  std::uint32_t nodes = 1;       // 0: as few as fit
  bool one_on_each = false;      // of the nodes; else as many as fit
  std::uint32_t slots = 1;       // of each unit
  std::uint32_t gpus = 0;        // of each unit
  std::uint64_t memory_mib = 0;  // on each node
  bool exclusive = false;        // nothing else on its nodes

  static Wish of(const Resources& resources);
  // How many units this node can take now.
  std::uint32_t units_on(const Room& room) const;
};

// "4 ranks with 2 cores and 1 GPU each, on 2 nodes": what a task needs, for people.
std::string describe(const Resources& resources);
// "1 core", "2 cores".
std::string counted(std::uint64_t number, const std::string& what);

// Of one endpoint, as its interchange knows it now. Nothing here shrinks while the interchange
// lives.
struct Offer {
  std::uint32_t nodes_per_block = 1;
  Room largest_node;       // its slots are 0 while neither the config nor a node says more
  bool node_seen = false;  // memory is known only then
  std::optional<std::uint32_t> gpus;  // of the largest node; none: not known
  std::int64_t block_walltime_s = 0;
  double usable_s = 0;  // of it, for tasks; 0: no limit
  bool operator==(const Offer&) const = default;

  // JSON, as "offer" in the endpoint's status. An empty optional: no such thing in there.
  std::string dump() const;
  static std::optional<Offer> parse(const std::string& json);
};

// What is asked for, found and possible, for people; empty when it may run there.
std::string why_impossible(const Offer& offer, const Resources& resources,
                           std::uint64_t walltime_ms);

}  // namespace farcall
