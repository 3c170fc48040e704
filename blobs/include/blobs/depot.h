// The blobs of one process: a directory on a thread of its own, what is fetched into it from other
// processes, and what is handed out of it. docs/data.md has the whole picture.
// All methods and callbacks are on the thread of the loop behind `Post`; nothing here blocks it.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/error.h"
#include "blobs/store.h"
#include "wire/blobs.h"

namespace farcall::blobs {

struct DepotOptions {
  std::filesystem::path root;
  // Beyond it the least recently used goes that is not pinned; 0: nothing goes by itself. What is
  // pinned may exceed it.
  std::uint64_t bytes_max = 0;
};

// kInvalidArgument: no bytes of a blob are meant by it.
Result<void> check_question(const wire::BlobGet& get);
wire::Message answer_to(const wire::BlobGet& get, const Result<Bytes>& bytes);

class Depot {
 public:
  using Post = std::function<void(std::function<void()>)>;  // runs it on the loop; any thread
  using Send = std::function<void(const wire::Message&)>;
  using Done = std::function<void(const Result<void>&)>;  // not from inside the call it answers
  // Somebody who has blobs: a connection, numbered by the caller.
  using Source = std::uint64_t;

  // Reads what is there. kIo when the directory cannot be made or read.
  static Result<std::unique_ptr<Depot>> open(DepotOptions options, Post post);
  ~Depot();  // callbacks that have not come do not come any more
  Depot(const Depot&) = delete;

  // What a source offers belongs to `scope`: the folder of its blobs, "" or a plain name. Again
  // after a reconnect; what was wanted of it goes on where it was.
  void connect(Source source, std::string scope, Send send);
  void disconnect(Source source);
  // It will not come back: what is wanted of nobody else ends with kUnreachable.
  void forget(Source source);
  void take(Source source, const wire::BlobChunk& chunk, Bytes data);

  // kNotFound, kIo (disk full …), kCorrupt, kUnreachable, or it is here.
  void fetch(Source source, const wire::BlobRef& blob, Done done);
  void serve(const std::string& scope, const wire::BlobGet& get, Send reply);
  // Reads all of any file.
  void verify(std::filesystem::path file, const wire::BlobRef& blob, Done done);

  bool has(const std::string& scope, const std::string& hash) const;
  std::filesystem::path file(const std::string& scope, const std::string& hash) const;
  // Counted. A pinned blob need not be here yet.
  void pin(const std::string& scope, const std::string& hash);
  void unpin(const std::string& scope, const std::string& hash);
  void drop(const std::string& scope, const std::string& hash);

  struct Kept {
    std::string scope;
    wire::BlobRef blob;
  };
  std::vector<Kept> all() const;
  std::uint64_t bytes() const;
  std::uint64_t bytes_max() const;

 private:
  struct Impl;
  explicit Depot(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace farcall::blobs
