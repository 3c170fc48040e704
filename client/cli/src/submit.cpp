// farcall submit: leaves the work at the relay and returns.
#include <fstream>

#include "base/files.h"
#include "cli/rows.h"
#include "common.h"
#include "farcall/payload.h"
#include "mpi_options.h"
#include "task_files.h"

namespace farcall::cli {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

// HOME/submissions.jsonl: written before anything is sent, so that no work is out there whose id
// nobody knows.
Result<void> write_down(const Invocation& invocation, const SubmissionHeader& header) {
  const fs::path path = invocation.home / "submissions.jsonl";
  std::ofstream file(path, std::ios::app);
  const json line = {{"submission_id", header.submission.string()},
                     {"created_ms", header.created_ms},
                     {"endpoint", invocation.text("endpoint")},
                     {"group", header.group},
                     {"label", header.label}};
  file << line.dump(-1, ' ', false, json::error_handler_t::replace) << std::endl;
  if (!file) return fail(ErrorCode::kIo, "{} cannot be written", path.string());
  return {};
}

struct Work {
  LocalFunction function;  // nothing of it when `registered` is set
  std::optional<FunctionId> registered;
  std::optional<Bytes> arguments;  // one argument set, `count` times
  std::optional<fs::path> inputs;  // or a file of them
  long long count = 1;
};

Result<Work> read_work(const Invocation& invocation) {
  Work work;
  auto count = invocation.number("count", 1, 1);
  if (!count) return fail(count.error());
  work.count = *count;
  if (invocation.words.empty()) {
    if (invocation.rest.empty())
      return fail(ErrorCode::kInvalidArgument,
                  "say what to submit: FILE.py:NAME or LIB.so:NAME [ARG…], or a command after --");
    work.function = command_function(invocation);
    json arguments = {{"argv", invocation.rest}};
    if (invocation.has("stdout")) arguments["stdout"] = invocation.text("stdout");
    try {
      work.arguments = json_arguments(arguments);
    } catch (const json::exception&) {
      return fail(ErrorCode::kInvalidArgument, "the command is not UTF-8 text");
    }
    return work;
  }
  if (auto id = FunctionId::parse(invocation.words[0])) {
    work.registered = *id;
  } else {
    auto function = read_function(invocation, invocation.words[0]);
    if (!function) return fail(function.error());
    work.function = std::move(*function);
  }
  if (invocation.has("inputs")) {
    work.inputs = invocation.text("inputs");
    if (invocation.words.size() > 1 || !invocation.rest.empty())
      return fail(ErrorCode::kInvalidArgument,
                  "arguments come from --inputs or the command line, "
                  "not from both");
  } else {
    std::vector<std::string> words = invocation.words;
    words.insert(words.end(), invocation.rest.begin(), invocation.rest.end());
    work.arguments = arguments_from_words(words, 1);
  }
  return work;
}

Result<void> add_all(const Work& work, SubmissionWriter& writer) {
  if (!work.inputs) {
    for (long long i = 0; i < work.count; ++i)
      if (auto added = writer.add(*work.arguments); !added) return fail(added.error());
    return {};
  }
  auto reader = RowReader::open(*work.inputs);
  if (!reader) return fail(reader.error());
  while (true) {
    auto row = reader->next();
    if (!row) return fail(row.error());
    if (!*row) return {};
    if (auto added = writer.add(std::move(**row)); !added) return fail(added.error());
  }
}

Result<void> take_files(const Invocation& invocation, Client& client, Work& work,
                        SubmissionHeader& header) {
  if (!invocation.has("input") && !invocation.has("output")) return {};
  if (!invocation.words.empty())
    return fail(ErrorCode::kInvalidArgument,
                "--input and --output are for a command after --; a Python function takes files as "
                "farcall.File");
  auto inputs = send_inputs(invocation, client);
  if (!inputs) return fail(inputs.error());
  work.arguments = with_files(invocation, *inputs, std::move(*work.arguments), header);
  return {};
}

Result<int> submit(const Invocation& invocation) {
  auto work = read_work(invocation);
  if (!work) return fail(work.error());
  auto client = connect(invocation);
  if (!client) return fail(client.error());
  auto header =
      header_from(invocation, **client, work->registered.value_or(work->function.record.id));
  if (!header) return fail(header.error());
  if (!work->registered) {
    auto id = (*client)->register_function(work->function.record, work->function.body);
    if (!id) return fail(id.error());
  }
  if (auto taken = take_files(invocation, **client, *work, *header); !taken)
    return fail(taken.error());
  header->submission = (*client)->new_submission_id();
  if (auto written = write_down(invocation, *header); !written) return fail(written.error());
  auto writer = (*client)->open_submission(*header);
  if (auto added = add_all(*work, *writer); !added) {
    (void)(*client)->cancel_submission(header->submission);
    return fail(added.error());
  }
  writer->seal();
  if (auto durable = writer->wait_durable(std::chrono::minutes(2)); !durable)
    return fail(durable.error());
  const std::string first = TaskId{header->submission, 0}.string();
  if (invocation.json) {
    print_json({{"submission_id", header->submission.string()},
                {"tasks", writer->added()},
                {"first_task_id", first},
                {"group", header->group}});
  } else if (writer->added() == 1) {
    fmt::print("{}\n", first);
  } else {
    fmt::print("{}\n", header->submission.string());
    fmt::print(stderr, "{} tasks; their ids end in 00000000 to {:08x}\n", writer->added(),
               writer->added() - 1);
  }
  return 0;
}

}  // namespace

std::vector<Command> submit_commands() {
  Command command{"submit",
                  "-e EP ((FILE.py | LIB.so):NAME [ARG…] | -- COMMAND…)",
                  0,
                  1000,
                  true,
                  "leave tasks at the relay, print their id, return",
                  "",
                  "",
                  task_options(),
                  submit};
  command.details =
      "Returns as soon as the relay has them safe; this machine can be switched off then. One "
      "task:\n"
      "its id is printed; several: the submission's. HOME/submissions.jsonl remembers them all.";
  command.examples =
      "farcall submit -e cluster -g night heat.py:solve 0.1\n"
      "farcall submit -e cluster -g night --count 100 tools.py:roll\n"
      "farcall submit -e cluster -g sweep --inputs rows.csv heat.py:solve\n"
      "farcall submit -e cluster -- ./simulate --steps 100\n"
      "farcall group results night --wait -o night.jsonl";
  command.options.push_back({"count,n", "N", "the same task so many times (1)"});
  command.options.push_back({"inputs", "FILE", "a task for each row of a .jsonl or .csv file"});
  command.options.push_back(
      {"stdout", "FILE", "file there for its standard output; %t in it: one for each MPI rank"});
  for (Option& option : file_options()) command.options.push_back(std::move(option));
  return {command};
}

}  // namespace farcall::cli
