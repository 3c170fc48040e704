#include "providers_pbs/pbs_provider.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/files.h"
#include "providers/command_text.h"

namespace farcall::providers::pbs {

namespace {

std::map<std::string, std::string> our_environment() {
  std::map<std::string, std::string> ours;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (const auto equals = text.find('='); equals != std::string_view::npos)
      ours.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return ours;
}

std::filesystem::path on_path(const std::string& program) {
  const char* path = std::getenv("PATH");
  for (const auto folder : split(path == nullptr ? "" : path, ':')) {
    const auto file = std::filesystem::path(folder.empty() ? "." : folder) / program;
    if (access(file.c_str(), X_OK) == 0) return file;
  }
  return {};
}

// Looked at before it is called: afterwards there would be a job that nobody can follow.
Result<void> check_qsub() {
  const auto file = on_path("qsub");
  if (file.empty()) return {};  // the call itself says so
  const auto text = read_file(file);
  if (!text || !is_slurms_wrapper(*text)) return {};
  return fail(
      ErrorCode::kSchedulerRefused,
      "{} is not PBS's qsub but a wrapper round Slurm's sbatch: this cluster runs Slurm; use "
      "`type: SlurmProvider`, or put PBS's own commands first on PATH",
      file.string());
}

}  // namespace

Result<std::unique_ptr<Provider>> PbsProProvider::create(const nlohmann::json& config) {
  auto settings = settings_from_json(config);
  if (!settings) return fail(settings.error());
  return std::make_unique<PbsProProvider>(std::move(*settings));
}

// In "/": qsub's helper loses a working directory that goes away, and its name may be anything.
Result<CommandOutput> PbsProProvider::run(const std::vector<std::string>& argv) const {
  Command command;
  command.argv = {"env", "-i"};
  for (auto& variable : clean_environment(our_environment()))
    command.argv.push_back(std::move(variable));
  command.argv.insert(command.argv.end(), argv.begin(), argv.end());
  command.working_directory = "/";
  command.time_limit =
      std::chrono::duration_cast<Duration>(std::chrono::duration<double>(settings_.cmd_timeout_s));
  auto output = run_command(command);
  if (!output) return fail(ErrorCode::kSchedulerUnavailable, "{}", output.error().message);
  return output;
}

template <class MakeCommand>
Result<CommandOutput> PbsProProvider::ask(MakeCommand command) {
  auto output = run(command(history_));
  if (!output || !history_ || !says_no_history(*output)) return output;
  history_ = false;
  return run(command(false));
}

Result<std::string> PbsProProvider::write_script(const BlockRequest& request) const {
  if (auto checked = check_request(request); !checked) return fail(checked.error());
  if (auto checked = check_qsub(); !checked) return fail(checked.error());
  if (auto made = records_.make(); !made) return fail(made.error());
  if (auto made = make_directory(request.directory, 0700); !made) return fail(made.error());
  std::string file = request.directory + "/" + request.job_name + ".pbs";
  if (auto written = write_file(file, render_script(settings_, request), 0600); !written)
    return fail(written.error());
  return file;
}

Result<SubmitReply> PbsProProvider::submit(const BlockRequest& request) {
  const auto file = write_script(request);
  if (!file) return fail(file.error());
  auto output = run(submit_command(*file));
  if (!output) return fail(output.error());
  auto reply = read_submit(*output);
  if (reply) records_.note_submit(reply->job_id, request.job_name);
  return reply;
}

Result<std::string> PbsProProvider::try_submit(const BlockRequest& request) {
  const auto file = write_script(request);
  if (!file) return fail(file.error());
  auto output = run(submit_command(*file, true));
  if (!output) return fail(output.error());
  const auto reply = read_submit(*output);
  if (!reply) return fail(reply.error());
  if (auto gone = cancel({reply->job_id}); !gone)
    return fail(gone.error().code, "the held job {} could not be deleted again: {}", reply->job_id,
                gone.error().message);
  return fmt::format("qsub took it as job {}, held, which was deleted again", reply->job_id);
}

Discovery PbsProProvider::discover() {
  Discovery found;
  if (!check_qsub()) return found;
  const auto output = run({"qstat", "-Q", "-f", "-F", "json"});
  if (!output || output->exit_code != 0) return found;
  const Listing listing = read_listing(output->out, "Queue");
  if (listing.version.empty()) return found;
  found.present = true;
  found.what = "PBS " + listing.version;
  if (auto queues = read_queues(listing); !queues.empty()) found.choices["queue"] = queues;
  return found;
}

Result<std::vector<JobStatus>> PbsProProvider::status(const std::vector<std::string>& job_ids) {
  if (std::none_of(job_ids.begin(), job_ids.end(), is_job_id))
    return read_status(CommandOutput(), job_ids);  // nothing that PBS could know
  auto output = ask([&](bool history) { return status_command(job_ids, history); });
  if (!output) return fail(output.error());
  auto jobs = read_status(*output, job_ids);
  if (!jobs) return jobs;
  for (JobStatus& job : *jobs) {
    // Not listed: ended, and PBS keeps no history. "M": moved to another server.
    if (job.listed && job.word != "M") continue;
    if (const auto record = records_.find(job.job_id)) {
      JobStatus told = status_from_record(job.job_id, *record);
      if (!job.listed || told.state == JobState::kEnded) job = std::move(told);
    }
  }
  return jobs;
}

Result<std::vector<std::string>> PbsProProvider::find_by_name(const std::string& job_name) {
  auto output = ask([&](bool history) { return find_command(job_name, history); });
  if (!output) return fail(output.error());
  auto ids = read_find(*output);
  if (!ids) return ids;
  for (const auto& id : *ids) records_.note_submit(id, job_name);
  for (auto& id : records_.ids_of_name(job_name))
    if (std::find(ids->begin(), ids->end(), id) == ids->end()) ids->push_back(std::move(id));
  return ids;
}

Result<void> PbsProProvider::cancel(const std::vector<std::string>& job_ids) {
  Ids known;
  std::copy_if(job_ids.begin(), job_ids.end(), std::back_inserter(known), is_job_id);
  const auto chunks = in_chunks(known, [](const std::string&) { return std::string(); });
  return cancel_each(chunks, [this](const Ids& chunk) -> Result<void> {
    for (const auto& id : chunk) records_.note_cancel(id);
    const auto output = run(cancel_command(chunk));
    return output ? read_cancel(*output) : Result<void>(fail(output.error()));
  });
}

Result<std::string> PbsProProvider::script(const BlockRequest& request) {
  if (auto checked = check_request(request); !checked) return fail(checked.error());
  return render_script(settings_, request);
}

}  // namespace farcall::providers::pbs
