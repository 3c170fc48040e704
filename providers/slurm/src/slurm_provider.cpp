#include "providers_slurm/slurm_provider.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/files.h"

namespace farcall::providers::slurm {

Result<std::unique_ptr<Provider>> SlurmProvider::create(const nlohmann::json& config) {
  auto settings = settings_from_json(config);
  if (!settings) return fail(settings.error());
  return std::make_unique<SlurmProvider>(std::move(*settings));
}

// A command that cannot even be started has surely changed nothing.
Result<CommandOutput> SlurmProvider::run(std::vector<std::string> argv) const {
  Command command;
  command.argv = std::move(argv);
  command.time_limit =
      std::chrono::duration_cast<Duration>(std::chrono::duration<double>(settings_.cmd_timeout_s));
  auto output = run_command(command);
  if (!output) {
    return fail(ErrorCode::kSchedulerUnavailable, "{}; is Slurm's client installed here?",
                output.error().message);
  }
  return output;
}

Result<std::string> SlurmProvider::write_script(const BlockRequest& request) const {
  if (auto checked = check_request(request); !checked) return fail(checked.error());
  if (auto made = make_directory(request.directory, 0700); !made) return fail(made.error());
  std::string file = request.directory + "/" + request.job_name + ".sbatch";
  if (auto written = write_file(file, render_script(settings_, request), 0600); !written) {
    return fail(written.error());
  }
  return file;
}

Result<SubmitReply> SlurmProvider::submit(const BlockRequest& request) {
  const auto file = write_script(request);
  if (!file) return fail(file.error());
  auto output = run(submit_command(settings_, request, *file));
  if (!output) return fail(output.error());
  return read_submit(*output);
}

Result<std::string> SlurmProvider::try_submit(const BlockRequest& request) {
  const auto file = write_script(request);
  if (!file) return fail(file.error());
  auto output = run(try_command(settings_, request, *file));
  if (!output) return fail(output.error());
  return read_try(*output);
}

Discovery SlurmProvider::discover() {
  Discovery found;
  const auto version = run({"sinfo", "--version"});
  const auto partitions = run(partitions_command());
  if (!version || !partitions || partitions->exit_code != 0) return found;
  found.present = true;
  found.what = trimmed(version->out);
  found.choices["partition"] = read_partitions(partitions->out);
  // Without accounting there are none.
  const char* user = std::getenv("USER");
  const auto accounts = run(accounts_command(user == nullptr ? "root" : user));
  if (accounts && accounts->exit_code == 0)
    if (auto choices = read_accounts(accounts->out); !choices.empty())
      found.choices["account"] = std::move(choices);
  return found;
}

Result<std::vector<JobStatus>> SlurmProvider::status(const std::vector<std::string>& job_ids) {
  if (job_ids.empty()) return std::vector<JobStatus>();
  auto output = run(status_command(settings_, job_ids));
  if (!output) return fail(output.error());
  return read_status(*output, job_ids);
}

Result<std::vector<std::string>> SlurmProvider::find_by_name(const std::string& job_name) {
  auto output = run(find_command(settings_, job_name));
  if (!output) return fail(output.error());
  return read_find(*output, job_name);
}

// By cluster, since each command is for one.
Result<void> SlurmProvider::cancel(const std::vector<std::string>& job_ids) {
  return cancel_each(in_chunks(job_ids, cluster_of), [this](const Ids& chunk) -> Result<void> {
    const auto output = run(cancel_command(settings_, chunk));
    return output ? read_cancel(*output) : Result<void>(fail(output.error()));
  });
}

Result<std::string> SlurmProvider::script(const BlockRequest& request) {
  if (auto checked = check_request(request); !checked) return fail(checked.error());
  return render_script(settings_, request);
}

}  // namespace farcall::providers::slurm
