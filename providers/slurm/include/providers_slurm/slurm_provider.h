// Slurm through its command line tools: sbatch, squeue, scancel.
#pragma once

#include "providers/provider.h"
#include "providers_slurm/slurm_text.h"

namespace farcall::providers::slurm {

class SlurmProvider final : public Provider {
 public:
  static constexpr const char* kName = "slurm";
  static constexpr const char* kVersion = "1";
  static std::vector<ConfigKey> schema() { return slurm::schema(); }
  static Result<std::unique_ptr<Provider>> create(const nlohmann::json& config);

  explicit SlurmProvider(Settings settings) : settings_(std::move(settings)) {}

  Result<SubmitReply> submit(const BlockRequest& request) override;
  Result<std::vector<JobStatus>> status(const std::vector<std::string>& job_ids) override;
  Result<std::vector<std::string>> find_by_name(const std::string& job_name) override;
  Result<void> cancel(const std::vector<std::string>& job_ids) override;
  Result<std::string> script(const BlockRequest& request) override;
  Result<std::string> try_submit(const BlockRequest& request) override;
  Discovery discover() override;

 private:
  // The file that sbatch gets, in the request's directory.
  Result<std::string> write_script(const BlockRequest& request) const;
  Result<CommandOutput> run(std::vector<std::string> argv) const;

  const Settings settings_;
};

}  // namespace farcall::providers::slurm
