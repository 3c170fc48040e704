#include "pilot/mpi/launch.h"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "base/files.h"
#include "base/subprocess.h"

namespace farcall::pilot {
namespace {

int number(std::string_view text) {
  int value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::string variable(const SubmissionHeader& header, const char* name) {
  const auto found = header.environment.find(name);
  return found == header.environment.end() ? "" : found->second;
}

}  // namespace

std::uint32_t ranks_of(const SubmissionHeader& header) {
  return static_cast<std::uint32_t>(
      std::clamp(number(variable(header, "FARCALL_NUM_RANKS")), 1, 1 << 20));
}

std::filesystem::path mpi_directory(const wire::AttemptRef& ref) {
  std::error_code error;
  const char* root = std::filesystem::is_directory("/dev/shm", error) ? "/dev/shm" : "/tmp";
  // Sockets lie below it, and their paths are short by law.
  const std::string id = ref.submission.string();
  return fmt::format("{}/farcall-{}-{}-{}", root, id.substr(id.size() - 12), ref.index,
                     ref.attempt);
}

std::vector<std::string> launch_words(const SubmissionHeader& header, std::uint32_t ranks,
                                      const std::string& tool) {
  std::vector<std::string> words = {
      "mpirun",    "-np", std::to_string(ranks), "--host", fmt::format("{}:{}", host_name(), ranks),
      "--bind-to", "none"};
  std::stringstream more(variable(header, "FARCALL_LAUNCHER_OPTIONS"));
  for (std::string word; more >> word;) words.push_back(word);
  if (tool.empty()) return words;
  words.push_back(tool);
  words.push_back("rank");
  return words;
}

std::map<std::string, std::string> launch_environment(const SubmissionHeader& header,
                                                      const std::string& tool,
                                                      const std::filesystem::path& directory) {
  const std::uint32_t ranks = ranks_of(header);
  std::map<std::string, std::string> out;
  out["FARCALL_NUM_RANKS"] = out["PARSL_NUM_RANKS"] = std::to_string(ranks);
  out["FARCALL_NUM_NODES"] = out["PARSL_NUM_NODES"] = "1";
  out["FARCALL_RANKS_PER_NODE"] = out["PARSL_RANKS_PER_NODE"] = std::to_string(ranks);
  out["FARCALL_MPI_PREFIX"] = out["PARSL_MPI_PREFIX"] =
      shell_join(launch_words(header, ranks, tool));
  // On this node, whatever the batch system gave to the pilots.
  out["OMPI_MCA_plm"] = "isolated";
  out["OMPI_MCA_ras"] = "^slurm,tm,lsf,gridengine";
  out["OMPI_MCA_orte_tmpdir_base"] = out["OMPI_MCA_btl_vader_backing_directory"] = directory;
  // Cores are counted and not bound: a rank that waits must not keep others from theirs.
  out["OMPI_MCA_mpi_yield_when_idle"] = "1";
  return out;
}

LauncherVerdict read_launcher(std::string_view text) {
  LauncherVerdict verdict;
  constexpr std::string_view kSignal = "exited on signal ";
  constexpr std::string_view kRank = "mpirun noticed that process rank ";
  constexpr std::string_view kName = "Process name: [[";
  constexpr std::string_view kAbort = "MPI_ABORT was invoked on rank ";
  if (const auto at = text.find(kSignal); at != std::string_view::npos)
    verdict.signal = number(text.substr(at + kSignal.size()));
  const auto abort = text.find(kAbort);
  if (const auto at = text.find(kRank); at != std::string_view::npos) {
    verdict.rank = number(text.substr(at + kRank.size()));
  } else if (abort != std::string_view::npos &&
             text.substr(abort).find("communicator MPI_COMM_WORLD") < 60) {
    verdict.rank = number(text.substr(abort + kAbort.size()));
  } else if (const auto name = text.find(kName); name != std::string_view::npos) {
    if (const auto comma = text.find("],", name); comma != std::string_view::npos)
      verdict.rank = number(text.substr(comma + 2));
  }
  return verdict;
}

}  // namespace farcall::pilot
