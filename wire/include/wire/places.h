// What pilots and interchange say to each other about tasks that get certain slots: those with
// ranks, several nodes, GPUs, memory or whole nodes. As messages.h; numbers from 58.
#pragma once

#include "wire/messages.h"

namespace farcall::wire {

// From a pilot after each welcome.
struct Topology {
  static constexpr MessageType kType{58};
  // Processors it may use as the system numbers them, neighbours side by side; how many of them lie
  // in each memory domain, in that order. Empty: not known.
  std::vector<std::uint32_t> processors;
  std::vector<std::uint32_t> domains;
  std::vector<std::string> gpus;  // as CUDA_VISIBLE_DEVICES and its kin name them
  std::uint32_t guests = 0;       // that it knows of; answered by Guests unless there are none
};

// What a task was given on one node.
struct NodeShare {
  std::string node;                       // host name
  std::uint32_t node_rank = 0;            // in the block
  std::uint32_t ranks = 0;                // that run there
  std::uint32_t slots = 0;                // that they count for
  std::vector<std::uint32_t> processors;  // ranks take equal parts in order; empty: not bound
  std::vector<std::string> gpus;          // likewise
};
struct TaskPlace {
  AttemptRef attempt;
  std::vector<NodeShare> shares;  // the first is on the node of the pilot that leads it
};
// Before the Dispatch that brings these attempts; the others of a Dispatch get any slots.
struct Places {
  static constexpr MessageType kType{59};
  std::vector<TaskPlace> places;
};

// A task that is led from another node and holds slots of this one.
struct Guest {
  AttemptRef attempt;
  std::uint32_t slots = 0;
};
// All of them; replaces what was said before. What others have started here is killed.
struct Guests {
  static constexpr MessageType kType{60};
  std::vector<Guest> guests;
};

// From the leading pilot of an attempt to the one of another node of it, through the interchange:
// run this, as a part of the attempt. Answered by Spawned when it has ended or cannot be started.
struct Spawn {
  static constexpr MessageType kType{61};
  AttemptRef attempt;
  std::uint64_t request = 0;  // of the leading pilot
  std::uint32_t node_rank = 0;
  std::string command;  // for sh -c
  std::map<std::string, std::string> environment;
  std::string directory;  // where it starts if that exists there
};
struct Spawned {
  static constexpr MessageType kType{62};
  AttemptRef attempt;
  std::uint64_t request = 0;
  std::int32_t code = 0;  // as a shell says it
  std::string text;       // what it wrote to its standard error, or why it was not started
};

// --- kept on disk --------------------------------------------------------------------------------

// What a task was given at one pilot; the numbers of slots and GPUs there.
struct PlacedShare {
  PilotId pilot;
  std::uint32_t ranks = 0;
  std::uint64_t memory_mib = 0;
  std::vector<std::uint32_t> slots, gpus;
  bool operator==(const PlacedShare&) const = default;
};
// Begins as SubmissionRanges, as which placements were kept before.
struct PlacedTasks {
  SubmissionId submission;
  RangeSet ranges;
  std::vector<PlacedShare> shares;  // empty: any slots, counted
  bool never = false;               // to be tried again
};

}  // namespace farcall::wire
