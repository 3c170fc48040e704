#include "providers_slurm/slurm_provider.h"

#include <algorithm>
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

Result<SubmitReply> SlurmProvider::submit(const BlockRequest& request) {
  if (auto checked = check_request(request); !checked) return fail(checked.error());
  if (auto made = make_directory(request.directory, 0700); !made) return fail(made.error());
  const std::string file = request.directory + "/" + request.job_name + ".sbatch";
  if (auto written = write_file(file, render_script(settings_, request), 0600); !written) {
    return fail(written.error());
  }
  auto output = run(submit_command(settings_, request, file));
  if (!output) return fail(output.error());
  return read_submit(*output);
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

// In chunks, so that a thousand ids do not meet the time limit of one command. One that fails does
// not keep the others from being cancelled; the first error is reported.
Result<void> SlurmProvider::cancel(const std::vector<std::string>& job_ids) {
  constexpr std::size_t kChunk = 100;
  std::optional<Error> first_error;
  for (std::size_t start = 0; start < job_ids.size(); start += kChunk) {
    const auto end = std::min(start + kChunk, job_ids.size());
    const std::vector<std::string> chunk(job_ids.begin() + static_cast<std::ptrdiff_t>(start),
                                         job_ids.begin() + static_cast<std::ptrdiff_t>(end));
    auto output = run(cancel_command(settings_, chunk));
    auto done = output ? read_cancel(*output) : Result<void>(fail(output.error()));
    if (!done && !first_error) first_error = done.error();
    // A controller that is away costs the time limit each time.
    if (!done && done.error().code != ErrorCode::kSchedulerRefused) break;
  }
  if (first_error) return fail(*first_error);
  return {};
}

Result<std::string> SlurmProvider::script(const BlockRequest& request) {
  if (auto checked = check_request(request); !checked) return fail(checked.error());
  return render_script(settings_, request);
}

}  // namespace farcall::providers::slurm
