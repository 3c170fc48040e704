// Results in one HDF5 file, with the arguments and functions that the relay still has.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "cli/result_file.h"
#include "farcall/client.h"

namespace farcall::cli {

bool is_campaign_file(const std::filesystem::path& path);  // by its name: .h5, .hdf5
// The line that ResultFile keeps of an outcome for a campaign; its data is the payload as it came.
nlohmann::json campaign_line(const SubmissionId& submission, const Outcome& outcome);
// The tasks that are in it; none when there is no such file.
Result<std::set<std::string>> task_ids_in_campaign(const std::filesystem::path& path);

struct CampaignPlan {
  std::string name;  // of the group or the sweep
  // As submission.list says; the position is the part in the result file.
  std::vector<nlohmann::json> submissions;
  bool replace = false;  // what is there
};
Result<void> write_campaign(Client& client, const CampaignPlan& plan, ResultFile& results,
                            const std::filesystem::path& out);
// One submission as submission.list says. kNotFound.
Result<nlohmann::json> listed_submission(Client& client, const SubmissionId& id);

}  // namespace farcall::cli
