#include "pilot/mpi/launch.h"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "base/subprocess.h"

namespace farcall::pilot {
namespace {

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, at);) parts.push_back(part);
  return parts;
}

std::uint32_t number(std::string_view text) {
  std::uint32_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::vector<std::uint32_t> numbers(const std::string& ranges) {
  std::vector<std::uint32_t> result;
  for (const std::string& part : split(ranges, ',')) {
    const auto dash = part.find('-');
    const std::uint32_t first = number(part.substr(0, dash));
    const std::uint32_t last = dash == std::string::npos ? first : number(part.substr(dash + 1));
    for (std::uint32_t i = first; i <= last; ++i) result.push_back(i);
  }
  return result;
}

// A task over nodes that has no ranks gets one on each where it wants to use the prefix.
std::uint32_t ranks_on(const wire::NodeShare& share) { return std::max(1U, share.ranks); }

std::uint32_t ranks_of(const wire::TaskPlace& place) {
  std::uint32_t ranks = 0;
  for (const wire::NodeShare& share : place.shares) ranks += ranks_on(share);
  return ranks;
}

template <class T>
std::vector<T> part(const std::vector<T>& all, std::uint32_t index, std::uint32_t count) {
  const std::size_t each = all.size() / std::max(1U, count);
  return {all.begin() + static_cast<std::ptrdiff_t>(index * each),
          all.begin() + static_cast<std::ptrdiff_t>((index + 1) * each)};
}

}  // namespace

std::string ranges_text(const std::vector<std::uint32_t>& all) {
  std::string text;
  for (std::size_t i = 0; i < all.size();) {
    std::size_t end = i + 1;
    while (end < all.size() && all[end] == all[end - 1] + 1) ++end;
    if (!text.empty()) text += ',';
    text += std::to_string(all[i]);
    if (end - i > 1) text += "-" + std::to_string(all[end - 1]);
    i = end;
  }
  return text;
}

std::string nodes_text(const wire::TaskPlace& place) {
  std::string text;
  for (const wire::NodeShare& share : place.shares)
    text += fmt::format("{}{}|{}|{}|{}", text.empty() ? "" : ";", share.node, ranks_on(share),
                        ranges_text(share.processors), fmt::join(share.gpus, ","));
  return text;
}

Result<RankShare> rank_share(const std::string& nodes, std::uint32_t rank) {
  std::uint32_t first = 0;
  for (const std::string& node : split(nodes, ';')) {
    std::vector<std::string> field = split(node, '|');
    field.resize(4);
    const std::uint32_t ranks = number(field[1]);
    if (rank < first + ranks)
      return RankShare{field[0], rank - first, part(numbers(field[2]), rank - first, ranks),
                       part(split(field[3], ','), rank - first, ranks)};
    first += ranks;
  }
  return fail(ErrorCode::kInvalidArgument, "rank {} has no share: the task has {} ranks ({})", rank,
              first, nodes);
}

std::map<std::string, std::string> gpu_environment(const std::vector<std::string>& gpus) {
  if (gpus.empty()) return {};
  const std::string names = fmt::format("{}", fmt::join(gpus, ","));
  return {{"CUDA_VISIBLE_DEVICES", names},
          {"ROCR_VISIBLE_DEVICES", names},
          {"ZE_AFFINITY_MASK", names},
          {"ZE_ENABLE_PCI_ID_DEVICE_ORDER", "1"}};
}

std::vector<std::string> launch_words(const wire::TaskPlace& place, const SubmissionHeader& header,
                                      const std::string& tool) {
  std::string hosts;
  for (const wire::NodeShare& share : place.shares)
    hosts += fmt::format("{}{}:{}", hosts.empty() ? "" : ",", share.node, ranks_on(share));
  // It is this one; where its name cannot be resolved, mpirun would try for ten seconds.
  if (place.shares.size() == 1) hosts = fmt::format("localhost:{}", ranks_on(place.shares.front()));
  // The ranks bind themselves: farcall-mpi knows their processors by number.
  std::vector<std::string> words = {
      "mpirun", "-np", std::to_string(ranks_of(place)), "--host", hosts, "--bind-to", "none"};
  std::stringstream more;
  if (const auto given = header.environment.find("FARCALL_LAUNCHER_OPTIONS");
      given != header.environment.end())
    more << given->second;
  for (std::string word; more >> word;) words.push_back(word);
  words.push_back(tool);
  words.push_back("rank");
  return words;
}

std::map<std::string, std::string> place_environment(const wire::TaskPlace& place,
                                                     const SubmissionHeader& header) {
  const wire::NodeShare& own = place.shares.front();
  std::map<std::string, std::string> out;
  out["FARCALL_MPI_NODES"] = nodes_text(place);
  out["FARCALL_CORES"] = ranges_text(own.processors);
  out["FARCALL_NUM_NODES"] = out["PARSL_NUM_NODES"] = std::to_string(place.shares.size());
  out["FARCALL_NUM_RANKS"] = out["PARSL_NUM_RANKS"] = std::to_string(ranks_of(place));
  out["FARCALL_RANKS_PER_NODE"] = out["PARSL_RANKS_PER_NODE"] = std::to_string(ranks_on(own));
  if (header.resources.ranks == 0 && place.shares.size() == 1)
    for (auto& [name, value] : gpu_environment(own.gpus)) out[name] = value;
  return out;
}

std::map<std::string, std::string> launch_environment(const wire::TaskPlace& place,
                                                      const SubmissionHeader& header,
                                                      const LaunchOptions& options) {
  std::map<std::string, std::string> out = place_environment(place, header);
  out["FARCALL_MPI_PREFIX"] = out["PARSL_MPI_PREFIX"] =
      shell_join(launch_words(place, header, options.tool));
  out["FARCALL_MPI_SOCKET"] = options.socket;
  // Only what the task was given counts, whatever the batch system gave to the pilots; the other
  // nodes' pilots start what mpirun needs there.
  out["OMPI_MCA_plm"] = "rsh";
  out["OMPI_MCA_plm_rsh_agent"] = options.tool + " rsh";
  out["OMPI_MCA_plm_rsh_no_tree_spawn"] = "1";
  // More ranks than processors: one that waits must not keep the others from theirs.
  if (place.shares.front().processors.empty()) out["OMPI_MCA_mpi_yield_when_idle"] = "1";
  out["OMPI_MCA_ras"] = "^slurm,tm,lsf,gridengine";
  // A node that is gone without a word is noticed within a minute.
  out["OMPI_MCA_oob_tcp_keepalive_time"] = "20";
  out["OMPI_MCA_oob_tcp_keepalive_intvl"] = "10";
  out["OMPI_MCA_oob_tcp_keepalive_probes"] = "4";
  out["OMPI_MCA_orte_tmpdir_base"] = options.directory;
  out["OMPI_MCA_btl_vader_backing_directory"] = options.directory;
  return out;
}

LauncherVerdict read_launcher(std::string_view text, int exit_code) {
  LauncherVerdict verdict;
  constexpr int kKilled = 128, kSignalMax = 64;
  constexpr std::string_view kSignal = "exited on signal ";
  if (const auto at = text.find(kSignal); at != std::string_view::npos)
    verdict.signal = static_cast<int>(number(text.substr(at + kSignal.size())));
  constexpr std::string_view kRank = "mpirun noticed that process rank ";
  constexpr std::string_view kName = "Process name: [[";
  constexpr std::string_view kAbort = "MPI_ABORT was invoked on rank ";
  const auto abort = text.find(kAbort);
  if (const auto at = text.find(kRank); at != std::string_view::npos) {
    verdict.rank = static_cast<int>(number(text.substr(at + kRank.size())));
  } else if (abort != std::string_view::npos &&
             text.substr(abort).find("communicator MPI_COMM_WORLD") < 60) {
    verdict.rank = static_cast<int>(number(text.substr(abort + kAbort.size())));
  } else if (const auto name = text.find(kName); name != std::string_view::npos) {
    if (const auto comma = text.find("],", name); comma != std::string_view::npos)
      verdict.rank = static_cast<int>(number(text.substr(comma + 2)));
  }
  // Whoever leaves with such a code by itself is said to: "Exit code:", or MPI_ABORT.
  const bool by_itself =
      abort != std::string_view::npos || text.find("Exit code:") != std::string_view::npos;
  if (verdict.signal == 0 && !by_itself && exit_code > kKilled && exit_code <= kKilled + kSignalMax)
    verdict.signal = exit_code - kKilled;
  for (const char* words : {"ORTE has lost communication with a remote daemon",
                            "ORTE was unable to reliably start one or more daemons",
                            "A process or daemon was unable to complete a TCP connection"})
    verdict.node_lost = verdict.node_lost || text.find(words) != std::string_view::npos;
  verdict.not_shared = text.find(kNotShared) != std::string_view::npos;
  return verdict;
}

}  // namespace farcall::pilot
