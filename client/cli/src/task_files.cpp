#include "task_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <map>

#include "base/files.h"
#include "base/subprocess.h"

namespace farcall::cli {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

Result<void> tar(std::vector<std::string> words) {
  words.insert(words.begin(), "tar");
  auto run = run_command({.argv = std::move(words)});
  if (!run) return fail(run.error());
  if (run->exit_code != 0) return fail(ErrorCode::kIo, "{}", run->err);
  return {};
}

// A directory as one file, the same for the same content.
Result<StoredBlob> store_directory(Client& client, const fs::path& path) {
  const char* root = std::getenv("TMPDIR");
  std::string archive = fmt::format("{}/farcall-XXXXXX", root == nullptr ? "/tmp" : root);
  const int fd = ::mkstemp(archive.data());
  if (fd < 0) return fail(ErrorCode::kIo, "cannot write {}", archive);
  ::close(fd);
  auto packed = tar({"-C", path.string(), "--sort=name", "--owner=0", "--group=0",
                     "--numeric-owner", "--format=gnu", "-cf", archive, "."});
  auto stored = packed ? client.store_file(archive) : fail(packed.error());
  ::unlink(archive.c_str());
  return stored;
}

bool stays_inside(const std::string& name) {
  const fs::path path(name);
  if (name.empty() || path.is_absolute() || name.back() == '/') return false;
  return std::none_of(path.begin(), path.end(),
                      [](const fs::path& part) { return part == "." || part == ".."; });
}

}  // namespace

std::vector<Option> file_options() {
  return {
      {"input", "PATH[=NAME]",
       "a file or directory that the task finds in its directory, under its name or NAME; may be "
       "repeated",
       true},
      {"output", "PATTERN",
       "files that come back from the task's directory: a name, or \"*.h5\"; may be repeated",
       true},
  };
}

Result<std::vector<TaskFile>> send_inputs(const Invocation& invocation, Client& client) {
  std::vector<TaskFile> files;
  std::map<std::string, std::string> paths;
  for (const std::string& wish : invocation.list("input")) {
    const auto cut = wish.rfind('=');
    const std::string path = wish.substr(0, cut);
    TaskFile file;
    file.name = cut == std::string::npos ? fs::absolute(path).lexically_normal().filename().string()
                                         : wish.substr(cut + 1);
    if (file.name.empty() && cut == std::string::npos)  // "folder/"
      file.name = fs::absolute(path).lexically_normal().parent_path().filename().string();
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0)
      return fail(ErrorCode::kNotFound, "--input {}: there is no {}", wish, path);
    if (!stays_inside(file.name))
      return fail(ErrorCode::kInvalidArgument,
                  "--input {}: \"{}\" is no name within the task's directory", wish, file.name);
    if (auto [entry, is_new] = paths.emplace(file.name, path); !is_new)
      return fail(ErrorCode::kInvalidArgument,
                  "--input {}: {} is called {} as well; write {}=OTHER-NAME", wish, entry->second,
                  file.name, path);
    file.mode = status.st_mode & 07777;
    file.tree = S_ISDIR(status.st_mode);
    auto stored = file.tree ? store_directory(client, path) : client.store_file(path);
    if (!stored) return fail(stored.error());
    file.hash = stored->hash;
    file.size = stored->size;
    files.push_back(std::move(file));
  }
  return files;
}

Bytes with_files(const Invocation& invocation, const std::vector<TaskFile>& inputs, Bytes arguments,
                 SubmissionHeader& header) {
  const auto outputs = invocation.list("output");
  if (!outputs.empty()) header.environment["FARCALL_TASK_OUTPUTS"] = json(outputs).dump();
  if (!outputs.empty() || !inputs.empty()) header.sandbox = true;
  return inputs.empty() ? arguments : arguments_with_files(inputs, arguments.view());
}

Result<std::vector<std::string>> bring_outputs(Client& client, const TaskId& task,
                                               const std::vector<TaskFile>& files,
                                               const fs::path& folder) {
  std::vector<std::string> paths;
  for (const TaskFile& file : files) {
    if (!stays_inside(file.name))
      return fail(ErrorCode::kCorrupt, "task {} has left a file called \"{}\"", task.string(),
                  file.name);
    const fs::path target = folder / file.name;
    auto came = client.fetch_blob(task, {file.hash, file.size});
    if (!came) return fail(came.error());
    std::error_code error;
    fs::create_directories(file.tree ? target : target.parent_path(), error);
    if (file.tree) {
      if (auto done = tar({"-C", target.string(), "-xf", came->string()}); !done)
        return fail(ErrorCode::kIo, "{} cannot be written: {}", target.string(),
                    done.error().message);
    } else {
      // Whole or not at all.
      const fs::path part = target.string() + fmt::format(".{}.part", ::getpid());
      fs::copy_file(*came, part, fs::copy_options::overwrite_existing, error);
      if (!error) fs::permissions(part, fs::perms(file.mode | 0200), error);
      if (!error) fs::rename(part, target, error);
      if (error) {
        const std::string why = error.message();
        fs::remove(part, error);
        return fail(ErrorCode::kIo, "{} cannot be written: {}", target.string(), why);
      }
    }
    paths.push_back(target.string());
  }
  return paths;
}

}  // namespace farcall::cli
