#include "result_shelf.h"

namespace farcall::interchange {

ResultShelf::ResultShelf(std::filesystem::path folder, blobs::Depot::Post post)
    : post_(std::move(post)), disk_(std::move(folder)) {}
ResultShelf::~ResultShelf() { alive_.reset(); }

Result<std::unique_ptr<ResultShelf>> ResultShelf::open(std::filesystem::path folder,
                                                       blobs::Depot::Post post) {
  std::unique_ptr<ResultShelf> shelf(new ResultShelf(std::move(folder), std::move(post)));
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

void ResultShelf::expire(Duration age) {
  disk_.put([age](staging::ResultFolder& folder) { folder.expire(age); });
}

}  // namespace farcall::interchange
