#include "model/offer.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace farcall {

using nlohmann::json;

Wish Wish::of(const Resources& resources) {
  Wish wish;
  wish.nodes = resources.nodes;
  wish.slots = std::max(1U, resources.cores);
  wish.gpus = resources.gpus;
  wish.memory_mib = resources.memory_mib;
  wish.exclusive = resources.exclusive;
  if (resources.ranks > 0) {
    wish.units = resources.ranks;
  } else {
    wish.units = wish.nodes = std::max(1U, resources.nodes);
    wish.one_on_each = true;
  }
  return wish;
}

std::string counted(std::uint64_t number, const std::string& what) {
  return std::to_string(number) + " " + what + (number == 1 ? "" : "s");
}

std::string describe(const Resources& resources) {
  const std::uint32_t nodes = std::max(1U, resources.nodes);
  std::string share = counted(std::max(1U, resources.cores), "core");
  if (resources.gpus > 0) share += " and " + counted(resources.gpus, "GPU");
  std::string text = resources.ranks > 0 ? counted(resources.ranks, "rank") + " with " + share +
                                               (resources.ranks > 1 ? " each" : "")
                     : nodes > 1 ? counted(nodes, "node") + " with " + share + " each"
                                 : share;
  if (resources.ranks > 0 && resources.nodes > 0) text += ", on " + counted(nodes, "node");
  if (resources.memory_mib > 0)
    text += fmt::format(", {} MiB of memory{}", resources.memory_mib,
                        nodes > 1 || resources.ranks > 0 ? " on each node" : "");
  if (resources.exclusive) text += ", with nothing else on its nodes";
  return text;
}

std::uint32_t Wish::units_on(const Room& room) const {
  if (memory_mib > room.memory_mib || (exclusive && room.slots < room.slots_total)) return 0;
  std::uint32_t result = room.slots / slots;
  if (gpus > 0) result = std::min(result, room.gpus / gpus);
  if (one_on_each) result = std::min(result, 1U);
  return result;
}

std::string why_impossible(const Offer& offer, const Resources& wants, std::uint64_t walltime_ms) {
  const Wish wish = Wish::of(wants);
  const std::string needs = "it needs " + describe(wants);
  const Room& room = offer.largest_node;
  if (offer.usable_s > 0 && static_cast<double>(walltime_ms) > offer.usable_s * 1000)
    return fmt::format(
        "its walltime of {} s is longer than the blocks of this endpoint can give it: they last {} "
        "s, of which {:.0f} s are for tasks",
        walltime_ms / 1000, offer.block_walltime_s, offer.usable_s);
  if (wish.nodes > offer.nodes_per_block)
    return fmt::format("{}, but a block of this endpoint has {} (nodes_per_block)", needs,
                       counted(offer.nodes_per_block, "node"));
  if (wish.nodes > wish.units) return fmt::format("{}: each node needs a rank", needs);
  if (room.slots == 0) return "";  // no node has been seen yet
  if (wish.slots > room.slots)
    return fmt::format("{}, but the largest node of this endpoint has {}", needs,
                       counted(room.slots, "core"));
  if (!offer.node_seen || (wish.gpus > 0 && !offer.gpus)) return "";
  if (wish.gpus > room.gpus)
    return fmt::format("{}, but the nodes of this endpoint have {}", needs,
                       counted(room.gpus, "GPU"));
  if (wish.memory_mib > room.memory_mib)
    return fmt::format("{}, but the largest node of this endpoint has {} MiB", needs,
                       room.memory_mib);
  const std::uint32_t nodes = wish.nodes == 0 ? offer.nodes_per_block : wish.nodes;
  const std::uint64_t most = std::uint64_t{wish.units_on(room)} * nodes;
  if (most < wish.units)
    return fmt::format("{}, but {} of this endpoint{} {} at most {}", needs, counted(nodes, "node"),
                       wish.nodes == 0 ? ", as many as a block has," : "",
                       nodes == 1 ? "holds" : "hold", most);
  return "";
}

std::string Offer::dump() const {
  return json{{"nodes_per_block", nodes_per_block},
              {"cores_per_node", largest_node.slots},
              {"memory_mib_per_node", largest_node.memory_mib},
              {"gpus_per_node", gpus ? json(*gpus) : json(nullptr)},
              {"node_seen", node_seen},
              {"block_walltime_s", block_walltime_s},
              {"usable_s", usable_s}}
      .dump();
}

std::optional<Offer> Offer::parse(const std::string& text) {
  const json fields = json::parse(text, nullptr, false);
  const auto number = [&](const char* name) -> double {
    const auto found = fields.find(name);
    return found != fields.end() && found->is_number() && *found >= 0 ? found->get<double>() : 0;
  };
  if (!fields.is_object() || number("nodes_per_block") < 1) return std::nullopt;
  Offer offer;
  const auto whole = [&](const char* name) {
    return static_cast<std::uint32_t>(std::min(number(name), 4e9));
  };
  offer.nodes_per_block = whole("nodes_per_block");
  if (fields.contains("gpus_per_node") && fields["gpus_per_node"].is_number())
    offer.gpus = whole("gpus_per_node");
  offer.largest_node = {whole("cores_per_node"), whole("cores_per_node"), offer.gpus.value_or(0),
                        static_cast<std::uint64_t>(std::min(number("memory_mib_per_node"), 1e15))};
  offer.node_seen = fields.contains("node_seen") && fields["node_seen"] == true;
  offer.block_walltime_s = static_cast<std::int64_t>(std::min(number("block_walltime_s"), 1e12));
  offer.usable_s = number("usable_s");
  return offer;
}

}  // namespace farcall
