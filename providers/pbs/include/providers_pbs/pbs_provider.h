// PBS Pro and OpenPBS through their command line tools: qsub, qstat, qselect, qdel.
#pragma once

#include "providers/provider.h"
#include "providers_pbs/pbs_text.h"
#include "providers_pbs/records.h"

namespace farcall::providers::pbs {

class PbsProProvider final : public Provider {
 public:
  static constexpr const char* kName = "pbspro";
  static constexpr const char* kVersion = "1";
  static std::vector<ConfigKey> schema() { return pbs::schema(); }
  static Result<std::unique_ptr<Provider>> create(const nlohmann::json& config);

  explicit PbsProProvider(Settings settings)
      : settings_(std::move(settings)), records_(settings_.records) {}

  Result<SubmitReply> submit(const BlockRequest& request) override;
  Result<std::vector<JobStatus>> status(const std::vector<std::string>& job_ids) override;
  Result<std::vector<std::string>> find_by_name(const std::string& job_name) override;
  Result<void> cancel(const std::vector<std::string>& job_ids) override;
  Result<std::string> script(const BlockRequest& request) override;
  // A job that is held from the start, and deleted at once.
  Result<std::string> try_submit(const BlockRequest& request) override;
  Discovery discover() override;

 private:
  // The file that qsub gets, in the request's directory, after all that can be checked before.
  Result<std::string> write_script(const BlockRequest& request) const;
  Result<CommandOutput> run(const std::vector<std::string>& argv) const;
  // `command(history)`; when the server keeps no history it is asked once more without.
  template <class MakeCommand>
  Result<CommandOutput> ask(MakeCommand command);

  const Settings settings_;
  const Records records_;
  // What the server answered last; a new process asks again.
  bool history_ = true;
};

}  // namespace farcall::providers::pbs
