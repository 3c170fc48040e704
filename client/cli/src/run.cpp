// farcall run, farcall call: one task, and its end is ours.
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "base/files.h"
#include "common.h"
#include "farcall/payload.h"
#include "mpi_options.h"
#include "progress_line.h"
#include "task_files.h"

namespace farcall::cli {

using nlohmann::json;

namespace {

struct Finished {
  TaskId task;
  Outcome outcome;
  std::vector<TaskFile> files;  // that it has left
};

void write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written <= 0 && errno != EINTR) return;
    if (written > 0) bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

// One stream of a command: printed as it comes, and the rest at the end. What was dropped on the
// way is said.
class Stream {
 public:
  explicit Stream(int fd) : fd_(fd) {}

  void take(std::uint64_t offset, std::string_view bytes, std::uint16_t attempt) {
    if (attempt != attempt_) shown_ = 0;  // begun anew elsewhere
    attempt_ = attempt;
    if (offset < shown_) {
      const std::uint64_t again = std::min<std::uint64_t>(shown_ - offset, bytes.size());
      bytes.remove_prefix(again);
      offset += again;
    }
    if (bytes.empty()) return;
    if (offset > shown_) gap(offset - shown_);
    write_all(fd_, bytes);
    shown_ = offset + bytes.size();
  }
  // `tail`: the end of all `total` bytes.
  void finish(std::string_view tail, std::uint64_t total, std::uint16_t attempt) {
    take(total - std::min<std::uint64_t>(tail.size(), total), tail, attempt);
  }

 private:
  void gap(std::uint64_t bytes) {
    fmt::print(stderr, "\nfarcall: {} bytes of output are not shown here\n", bytes);
  }
  const int fd_;
  std::uint64_t shown_ = 0;
  std::uint16_t attempt_ = 1;
};

using OnNotes = std::function<void(const TaskNotes&)>;

// Submits one task and waits for it. An interrupt cancels it.
Result<Finished> run_one(Client& client, const SubmissionHeader& header, Bytes arguments,
                         OnNotes on_notes) {
  catch_interrupts();
  auto submission = client.submit(header, {std::move(arguments)});
  if (!submission) return fail(submission.error());
  Finished finished{{*submission, 0}, {}};
  CollectRequest request;
  request.submissions = {{*submission, {}, true}};
  request.on_outcomes = [&](OutcomeBatch& batch) {
    finished.outcome = batch.outcomes.front();
    finished.outcome.data = Bytes::copy_of(finished.outcome.data.view());
  };
  request.whole_values = false;
  request.on_notes = std::move(on_notes);
  request.keep_going = [] { return !interrupted(); };
  auto done = client.collect(std::move(request));
  if (!done) {
    if (interrupted()) {
      (void)client.cancel_submission(*submission);
      return fail(ErrorCode::kCancelled, "interrupted: task {} was cancelled",
                  finished.task.string());
    }
    return fail(done.error());
  }
  if (finished.outcome.task.state == TaskState::kSucceeded) {
    auto parts = result_parts(finished.outcome.data.view());
    if (!parts) return fail(parts.error());
    finished.files = std::move(parts->files);
    auto whole = client.whole_value(finished.task, finished.outcome.data);
    if (!whole) return fail(whole.error());
    finished.outcome.data = std::move(*whole);
  }
  client.collected(*submission, RangeSet{{0, 1}});
  return finished;
}

Result<int> show_command_result(const Invocation& invocation, const Finished& finished, Stream& out,
                                Stream& err) {
  if (finished.outcome.task.state != TaskState::kSucceeded) {
    if (invocation.json) {
      json line = outcome_json(finished.outcome);
      line["task_id"] = finished.task.string();
      print_json(line);
    }
    print_failure(finished.outcome, finished.task);
    const int code = finished.outcome.task.exit_code;
    return code != 0 ? code & 0xff : error_exit_code(ErrorCode::kTaskFailed);
  }
  auto result = decode_shell_result(finished.outcome.data.view());
  if (!result) return fail(result.error());
  if (invocation.json) {
    json line = outcome_json(finished.outcome);
    line["task_id"] = finished.task.string();
    print_json(line);
  } else {
    const std::uint16_t attempt = finished.outcome.task.attempt;
    out.finish(result->out, result->out_bytes, attempt);
    err.finish(result->err, result->err_bytes, attempt);
  }
  return finished.outcome.task.exit_code & 0xff;
}

Result<int> run(const Invocation& invocation) {
  const std::vector<std::string>& command =
      invocation.has_rest ? invocation.rest : invocation.words;
  if (command.empty() || (invocation.has_rest && !invocation.words.empty()))
    return fail(ErrorCode::kInvalidArgument,
                "write the command after --: farcall run -e {} -- COMMAND ARGUMENTS…",
                invocation.text("endpoint", "EP"));
  json arguments = {{"argv", command}};
  if (invocation.has("stdout")) arguments["stdout"] = invocation.text("stdout");
  if (invocation.has("stdin")) {
    auto text = read_file(invocation.text("stdin"));
    if (!text) return fail(text.error());
    arguments["stdin"] = *text;
  }
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  LocalFunction function = command_function(invocation);
  auto header = header_from(invocation, **client, function.record.id);
  if (!header) return fail(header.error());
  if (header->label.empty()) header->label = fmt::format("{}", fmt::join(command, " "));
  auto id = (*client)->register_function(std::move(function.record), std::move(function.body));
  if (!id) return fail(id.error());
  std::optional<Bytes> packed;
  try {
    packed = json_arguments(arguments);
  } catch (const json::exception&) {
    return fail(ErrorCode::kInvalidArgument, "the command or its input is not UTF-8 text");
  }
  Stream out(STDOUT_FILENO), err(STDERR_FILENO);
  OnNotes on_notes;
  if (!invocation.json && !invocation.has("no-stream")) {
    header->environment["FARCALL_TASK_STREAM"] = "1";
    on_notes = [&](const TaskNotes& notes) {
      for (const TaskNote& note : notes.notes) {
        out.take(note.out_offset, note.out, note.attempt);
        err.take(note.err_offset, note.err, note.attempt);
      }
    };
  }
  auto inputs = send_inputs(invocation, **client);
  if (!inputs) return fail(inputs.error());
  packed = with_files(invocation, *inputs, std::move(*packed), *header);
  auto finished = run_one(**client, *header, std::move(*packed), std::move(on_notes));
  if (!finished) {
    if (!interrupted()) return fail(finished.error());
    fmt::print(stderr, "farcall: {}\n", finished.error().message);
    return kInterruptedExitCode;
  }
  auto brought = bring_outputs(**client, finished->task, finished->files, ".");
  auto code = show_command_result(invocation, *finished, out, err);
  if (code && !brought) return fail(brought.error());
  (void)(*client)->flush();
  return code;
}

Result<int> call(const Invocation& invocation) {
  std::vector<std::string> words = invocation.words;
  words.insert(words.end(), invocation.rest.begin(), invocation.rest.end());
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto function = find_or_register(**client, invocation, words[0]);
  if (!function) return fail(function.error());
  auto header = header_from(invocation, **client, *function);
  if (!header) return fail(header.error());
  const bool streams = invocation.has("stream");
  if (streams) header->environment["FARCALL_TASK_STREAM"] = "1";
  std::optional<ProgressLine> bar;  // there is one when the function says something
  const bool shows_progress = invocation.has("progress") || ::isatty(STDERR_FILENO);
  Stream out(STDERR_FILENO), err(STDERR_FILENO);  // standard output is for the result
  OnNotes on_notes;
  if (shows_progress || streams)
    on_notes = [&](const TaskNotes& notes) {
      for (const TaskNote& note : notes.notes) {
        out.take(note.out_offset, note.out, note.attempt);
        err.take(note.err_offset, note.err, note.attempt);
      }
      const bool said = std::any_of(notes.notes.begin(), notes.notes.end(),
                                    [](const TaskNote& note) { return note.has_progress; });
      if (!said || !shows_progress || streams) return;
      if (!bar) bar.emplace(invocation, 1, 0);
      bar->take(notes);
    };
  auto finished = run_one(**client, *header, arguments_from_words(words, 1), std::move(on_notes));
  bar.reset();
  if (!finished) {
    if (!interrupted()) return fail(finished.error());
    fmt::print(stderr, "farcall: {}\n", finished.error().message);
    return kInterruptedExitCode;
  }
  (void)(*client)->flush();
  json line = outcome_json(finished->outcome);
  line["task_id"] = finished->task.string();
  const bool succeeded = finished->outcome.task.state == TaskState::kSucceeded;
  if (invocation.json) print_json(line);
  if (!succeeded) {
    print_failure(finished->outcome, finished->task);
    return error_exit_code(ErrorCode::kTaskFailed);
  }
  if (invocation.json) return 0;
  if (!line["error"].is_null())
    fmt::print(stderr, "farcall: {}\n", text_at(line, "error"));
  else
    fmt::print("{}\n", line["result"].dump(-1, ' ', false, json::error_handler_t::replace));
  return 0;
}

}  // namespace

std::vector<Command> run_commands() {
  Command run_command{"run",
                      "-e EP -- COMMAND…",
                      0,
                      64,
                      true,
                      "run a command there; its output and exit code come back",
                      "",
                      "",
                      task_options(),
                      run};
  run_command.details =
      "The command's standard output and error are printed while it runs (the last lines when "
      "there\n"
      "is more than fits through), and its exit code is this program's. Ctrl-C cancels it.\n"
      "Files of --input are sent once, whatever number of tasks has them; those of --output come "
      "into\n"
      "the current directory. A task with files has a directory of its own.";
  run_command.examples =
      "farcall run -e cluster -- hostname\n"
      "farcall run -e cluster --ranks 8 --nodes 2 -- ./solver in.yaml      # with mpirun\n"
      "farcall run -e cluster --walltime 10m --cwd /scratch/me -- ./simulate --steps 100\n"
      "farcall run -e cluster --input mesh.in --output '*.h5' -- ./simulate mesh.in\n"
      "farcall run -e cluster -- bash -c 'echo $HOSTNAME; ls | wc -l'";
  run_command.options.push_back(
      {"stdout", "FILE", "file there for its standard output; %t in it: one for each MPI rank"});
  for (Option& option : file_options()) run_command.options.push_back(std::move(option));
  run_command.options.push_back(
      {"no-stream", "", "print the last lines of the output when it has ended"});
  run_command.options.push_back({"stdin", "FILE", "a local file for its standard input"});
  Command call_command{"call",
                       "-e EP (FILE.py | LIB.so):NAME [ARG…]",
                       1,
                       1000,
                       true,
                       "call a function there, print its result",
                       "",
                       "",
                       task_options(),
                       call};
  call_command.details =
      "Arguments are JSON; what is no JSON is a text; name=JSON is a keyword argument. The result "
      "is\n"
      "printed as JSON. An exception is printed with its remote traceback, exit code 1.";
  call_command.examples =
      "farcall call -e cluster heat.py:solve 0.1 steps=200\n"
      "farcall call -e cluster --ranks 4 waves.py:solve 0.1      # def solve(comm, step): mpi4py\n"
      "farcall call -e cluster tools.py:scale '[1, 2, 3]' factor=-2.5\n"
      "farcall call -e cluster libheat.so:solve 0.1 200    # see <farcall/function.h>\n"
      "farcall call -e cluster 1b4e28ba-2fa1-81d2-883f-0016d3cca427 42    # a registered function";
  call_command.options.push_back(
      {"stream", "", "show on stderr what the function prints, as it does"});
  call_command.options.push_back({"progress", "", "show progress although stderr is no terminal"});
  return {run_command, call_command};
}

}  // namespace farcall::cli
