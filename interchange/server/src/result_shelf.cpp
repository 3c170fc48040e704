#include "result_shelf.h"

#include <nlohmann/json.hpp>

#include "base/log.h"

namespace farcall::interchange {

using nlohmann::json;

namespace {

// Removed at once, so that nobody who wants to read waits for long.
constexpr std::size_t kRemovedAtOnce = 500;

Result<staging::ResultFolder::Taken> remove_some(staging::ResultFolder& folder,
                                                 const ResultShelf::Tasks& tasks, bool remember) {
  return folder.remove_of(
      [&tasks](const std::string& name) {
        const auto task = TaskId::parse(name);
        if (!task) return false;
        const auto found = tasks.find(task->submission);
        return found != tasks.end() && found->second.contains(task->index);
      },
      kRemovedAtOnce, remember);
}

json file_json(const staging::ResultFolder::Listed& listed) {
  const auto& [kept, removed] = listed;
  return {{"task", kept.task},
          {"hash", kept.hash},
          {"kind", kept.file.ends_with(".h5") ? "result" : "file"},
          {"bytes", kept.file_bytes},
          {"written_ms", kept.written_ms},
          {"state", removed ? staging::name_of(removed->why) : "there"},
          {"removed_ms", removed ? removed->removed_ms : 0}};
}

}  // namespace

ResultShelf::ResultShelf(std::filesystem::path folder, Duration keep, blobs::Depot::Post post)
    : keep_(keep), post_(std::move(post)), disk_(std::move(folder)) {}
ResultShelf::~ResultShelf() { alive_.reset(); }

Result<std::unique_ptr<ResultShelf>> ResultShelf::open(std::filesystem::path folder, Duration keep,
                                                       blobs::Depot::Post post) {
  std::unique_ptr<ResultShelf> shelf(new ResultShelf(std::move(folder), keep, std::move(post)));
  if (auto opened = shelf->disk_.store().open(); !opened) return fail(opened.error());
  shelf->disk_.start();
  return shelf;
}

void ResultShelf::run(std::function<Result<std::string>(staging::ResultFolder&)> work,
                      Answer done) {
  disk_.put([post = post_, weak = std::weak_ptr<bool>(alive_), work = std::move(work),
             done = std::move(done)](staging::ResultFolder& folder) {
    auto found = work(folder);
    Result<Bytes> bytes = found ? Result<Bytes>(Bytes(std::move(*found))) : fail(found.error());
    post([weak, done, bytes = std::move(bytes)] {
      if (!weak.expired()) done(bytes);
    });
  });
}

void ResultShelf::serve(const wire::BlobGet& get, Send reply) {
  const auto answer = [get, reply](const Result<Bytes>& bytes) {
    reply(blobs::answer_to(get, bytes));
  };
  if (auto fine = blobs::check_question(get); !fine) return answer(fail(fine.error()));
  run(
      [get](staging::ResultFolder& folder) {
        return folder.read(get.blob.hash, get.blob.size, get.offset, get.size);
      },
      answer);
}

void ResultShelf::gather(const wire::BlobRef& blob, staging::Pieces pieces, std::uint64_t bytes_max,
                         Answer done) {
  run(
      [blob, pieces = std::move(pieces), bytes_max](staging::ResultFolder& folder) {
        return folder.gather(blob.hash, blob.size, pieces, bytes_max);
      },
      std::move(done));
}

void ResultShelf::drop(const std::string& task, const std::string& hash, Answer done) {
  run(
      [task, hash](staging::ResultFolder& folder) -> Result<std::string> {
        if (auto removed = folder.remove(task, hash); !removed) return fail(removed.error());
        return "{}";
      },
      std::move(done));
}

void ResultShelf::list(const std::string& after, std::size_t files_max, Answer done) {
  run(
      [after, files_max, keep = keep_](staging::ResultFolder& folder) -> Result<std::string> {
        const auto page = folder.page(after, files_max);
        if (!page) return fail(page.error());
        json files = json::array();
        for (const auto& listed : page->files) files.push_back(file_json(listed));
        const auto keep_ms = std::chrono::duration_cast<std::chrono::milliseconds>(keep).count();
        return json{{"files", std::move(files)},
                    {"keep_ms", keep_ms},
                    {"last", page->last},
                    {"more", page->more}}
            .dump();
      },
      std::move(done));
}

void ResultShelf::release(Tasks tasks, Answer done) {
  run(
      [tasks = std::move(tasks)](staging::ResultFolder& folder) -> Result<std::string> {
        const auto taken = remove_some(folder, tasks, true);
        if (!taken) return fail(taken.error());
        return json{{"files", taken->files},
                    {"bytes", taken->bytes},
                    {"hashes", taken->hashes},
                    {"more", taken->more}}
            .dump();
      },
      std::move(done));
}

void ResultShelf::forget(Tasks tasks, Answer done) {
  auto more = std::make_shared<bool>(false);
  auto kept = std::make_shared<const Tasks>(std::move(tasks));
  run(
      [kept, more](staging::ResultFolder& folder) -> Result<std::string> {
        const auto taken = remove_some(folder, *kept, false);
        if (!taken) return fail(taken.error());
        if (taken->files > 0)
          log_info("removed {} results of submissions whose time is over", taken->files);
        *more = taken->more;
        return "{}";
      },
      [this, kept, more, done = std::move(done)](const Result<Bytes>& answer) {
        if (answer && *more) return forget(*kept, done);
        done(answer);
      });
}

void ResultShelf::expire() {
  disk_.put([keep = keep_](staging::ResultFolder& folder) { folder.expire(keep); });
}

}  // namespace farcall::interchange
