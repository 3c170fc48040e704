// farcall._farcall: libfarcall as Python sees it. Thin on purpose: ids are strings, payloads are
// bytes, everything with an opinion is in the Python package around it.
//
// The interpreter lock is released in every call that may wait. No callback of libfarcall takes it:
// they fill an EventQueue that a Python thread empties.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "events.h"
#include "farcall/client.h"
#include "farcall/payload.h"

namespace py = pybind11;

namespace farcall::python {
namespace {

using IndexRanges = std::vector<std::pair<std::uint32_t, std::uint32_t>>;  // one past the end

// Raises farcall.errors.FarcallError, or the class of it that stands for the code.
[[noreturn]] void raise(const Error& error) {
  const py::object exception =
      py::module_::import("farcall.errors")
          .attr("from_code")(std::string(error_name(error.code)), error.message);
  PyErr_SetObject(py::type::of(exception).ptr(), exception.ptr());
  throw py::error_already_set();
}

template <class T>
T value_or_raise(Result<T> result) {
  if (!result) raise(result.error());
  return std::move(*result);
}
void check(const Result<void>& result) {
  if (!result) raise(result.error());
}

template <class IdType>
IdType parse_id(const std::string& text) {
  return value_or_raise(IdType::parse(text));
}

Duration seconds(double value) {
  // A century: so that "for ever" does not overflow.
  constexpr double kLongest = 100.0 * 365 * 86400;
  return std::chrono::duration_cast<Duration>(
      std::chrono::duration<double>(std::min(value, kLongest)));
}

RangeSet to_ranges(const IndexRanges& pairs) {
  RangeSet ranges;
  for (const auto& [first, last] : pairs) ranges.insert(Range{first, last});
  return ranges;
}
IndexRanges from_ranges(const RangeSet& ranges) {
  IndexRanges pairs;
  for (const Range range : ranges.ranges()) pairs.emplace_back(range.first, range.last);
  return pairs;
}

template <class T>
void take(const py::dict& from, const char* key, T& into) {
  if (from.contains(key)) into = from[key].cast<T>();
}

Resources to_resources(const py::dict& from) {
  Resources resources;
  take(from, "cores", resources.cores);
  take(from, "memory_mib", resources.memory_mib);
  take(from, "gpus", resources.gpus);
  take(from, "nodes", resources.nodes);
  take(from, "ranks", resources.ranks);
  take(from, "exclusive", resources.exclusive);
  return resources;
}

RetryPolicy to_retry(const py::dict& from) {
  RetryPolicy retry;
  take(from, "user_error", retry.user_error);
  take(from, "crash", retry.crash);
  take(from, "lost", retry.lost);
  take(from, "memory_exceeded", retry.memory_exceeded);
  take(from, "time_exceeded", retry.time_exceeded);
  take(from, "allocation_ended", retry.allocation_ended);
  take(from, "environment", retry.environment);
  take(from, "never", retry.never);
  return retry;
}

SubmissionHeader to_header(const py::dict& from) {
  SubmissionHeader header;
  header.function = parse_id<FunctionId>(from["function"].cast<std::string>());
  header.endpoint = parse_id<EndpointId>(from["endpoint"].cast<std::string>());
  if (from.contains("submission"))
    header.submission = parse_id<SubmissionId>(from["submission"].cast<std::string>());
  take(from, "group", header.group);
  take(from, "label", header.label);
  take(from, "priority", header.priority);
  take(from, "walltime_ms", header.walltime_ms);
  take(from, "environment", header.environment);
  take(from, "sandbox", header.sandbox);
  take(from, "created_ms", header.created_ms);
  if (from.contains("resources"))
    header.resources = to_resources(from["resources"].cast<py::dict>());
  if (from.contains("retry")) header.retry = to_retry(from["retry"].cast<py::dict>());
  return header;
}

// Arrays are made in the memory of their payload and can be changed, as any result of Python's.
py::object to_python(const Bytes& data) {
  if (!data.empty() && data.data()[0] == 'N') return py::bytearray(data.data(), data.size());
  return py::bytes(data.data(), data.size());
}

py::tuple to_python(const OutcomeBatch& batch) {
  py::list outcomes;
  for (const Outcome& outcome : batch.outcomes) {
    const TaskOutcome& task = outcome.task;
    outcomes.append(py::make_tuple(task.index, task.attempt, std::string(name_of(task.state)),
                                   std::string(name_of(task.failure)), task.exit_code, task.signal,
                                   task.started_ms, task.ended_ms, task.host,
                                   to_python(outcome.data)));
  }
  return py::make_tuple("outcomes", batch.submission.string(), outcomes);
}

py::tuple to_python(const SubmissionProgress& progress) {
  py::object error = py::none();
  if (progress.error)
    error = py::make_tuple(std::string(error_name(progress.error->code)), progress.error->message);
  return py::make_tuple("progress", progress.submission.string(), progress.received,
                        progress.sealed, progress.succeeded, progress.failed, progress.cancelled,
                        from_ranges(progress.running), error);
}

// The memory of a Python object for as long as this lives.
class PyBuffer {
 public:
  explicit PyBuffer(const py::buffer& object) {
    if (PyObject_GetBuffer(object.ptr(), &buffer_, PyBUF_SIMPLE) != 0)
      throw py::error_already_set();
  }
  PyBuffer(PyBuffer&& other) noexcept : buffer_(std::exchange(other.buffer_, {})) {}
  PyBuffer& operator=(PyBuffer&&) = delete;
  ~PyBuffer() {
    if (buffer_.obj != nullptr) PyBuffer_Release(&buffer_);
  }
  std::string_view view() const {
    return {static_cast<const char*>(buffer_.buf), static_cast<std::size_t>(buffer_.len)};
  }

 private:
  Py_buffer buffer_{};
};

// A submission on its way: add, seal, watch, wait. Keeps its client alive.
class PyWriter {
 public:
  PyWriter(std::shared_ptr<Client> client, std::unique_ptr<SubmissionWriter> writer)
      : client_(std::move(client)), writer_(std::move(writer)) {}

  std::string id() const { return writer_->id().string(); }

  // Waits while too much is unacknowledged. After an error it may be called again with what is
  // missing from added() on.
  void add(const std::vector<std::string_view>& argument_sets, std::size_t first) {
    std::vector<Bytes> sets;
    for (std::size_t i = first; i < argument_sets.size(); ++i)
      sets.push_back(Bytes::copy_of(argument_sets[i]));
    check([&]() -> Result<void> {
      py::gil_scoped_release release;
      for (Bytes& set : sets)
        if (auto index = writer_->add(std::move(set)); !index) return fail(index.error());
      return {};
    }());
  }
  std::uint32_t added() const { return writer_->added(); }
  void seal() { writer_->seal(); }
  void wait_durable(double timeout_s) {
    check([&] {
      py::gil_scoped_release release;
      return writer_->wait_durable(seconds(timeout_s));
    }());
  }

 private:
  std::shared_ptr<Client> client_;
  std::unique_ptr<SubmissionWriter> writer_;  // goes first
};

// The client of one relay. Thread-safe. After close() every method raises.
class PyClient {
 private:
  // Guarded by the interpreter lock; the copy keeps the client alive through a call.
  std::shared_ptr<Client> client() const {
    if (!client_) raise(Error{ErrorCode::kInvalidArgument, "this client has been closed"});
    return client_;
  }

  template <class F>
  auto waiting(F&& f) {
    const auto held = client();
    auto result = [&] {
      py::gil_scoped_release release;
      return f(*held);
    }();
    return value_or_raise(std::move(result));
  }

  static std::tuple<std::uint64_t, std::uint64_t, std::uint64_t> counts(
      const Client::CancelCounts& c) {
    return {c.cancelled, c.requested, c.finished};
  }

 public:
  PyClient(const std::string& home, const std::string& identity, const std::string& relay,
           const std::string& invitation, double timeout_s)
      : events_(std::make_shared<EventQueue>()) {
    ClientOptions options;
    options.home = home;
    options.identity = identity;
    options.relay = relay;
    options.invitation = invitation;
    options.timeout = seconds(timeout_s);
    auto connected = [&] {
      py::gil_scoped_release release;
      return Client::connect(std::move(options));
    }();
    if (!connected) raise(connected.error());
    client_ = std::move(*connected);
  }
  ~PyClient() { close(); }

  py::dict relay() const {
    const RelayInfo info = client()->relay();
    py::dict answer;
    answer["address"] = info.address;
    answer["software"] = info.software;
    answer["user"] = info.user;
    answer["generation"] = info.generation;
    answer["inline_bytes_max"] = info.inline_bytes_max;
    return answer;
  }

  std::pair<std::string, std::vector<py::bytes>> call(const std::string& method,
                                                      const std::string& parameters) {
    const auto answer = waiting([&](Client& c) { return c.call(method, parameters); });
    std::vector<py::bytes> payload;
    for (const Bytes& frame : answer.payload) payload.emplace_back(frame.data(), frame.size());
    return {answer.json, std::move(payload)};
  }

  std::string register_function(const std::string& kind, const std::string& name,
                                const std::string& meta, std::string body) {
    const auto number = function_kind_from_name(kind);
    if (!number)
      raise(Error{ErrorCode::kInvalidArgument, fmt::format("'{}' is no kind of function", kind)});
    FunctionRecord record;
    record.kind = *number;
    record.name = name;
    record.meta = meta;
    Bytes bytes(std::move(body));
    return waiting([&](Client& c) { return c.register_function(record, bytes); }).string();
  }

  // (hash, size). The buffers are read while it runs.
  std::pair<std::string, std::uint64_t> store_bytes(const std::vector<py::buffer>& parts) {
    std::vector<PyBuffer> held;
    std::vector<std::string_view> views;
    held.reserve(parts.size());
    for (const py::buffer& part : parts) views.push_back(held.emplace_back(part).view());
    const StoredBlob blob = waiting([&](Client& c) { return c.store_bytes(views); });
    return {blob.hash, blob.size};
  }
  std::pair<std::string, std::uint64_t> store_file(const std::string& path) {
    const StoredBlob blob = waiting([&](Client& c) { return c.store_file(path); });
    return {blob.hash, blob.size};
  }

  std::string fetch_blob(const std::string& task, const std::string& hash, std::uint64_t size) {
    const auto id = parse_id<TaskId>(task);
    return waiting([&](Client& c) { return c.fetch_blob(id, {hash, size}); }).string();
  }

  std::string find_endpoint(const std::string& name_or_id) {
    return waiting([&](Client& c) { return c.find_endpoint(name_or_id); }).string();
  }

  std::string new_submission_id() { return client()->new_submission_id().string(); }

  std::unique_ptr<PyWriter> open_submission(const py::dict& fields) {
    SubmissionHeader header = to_header(fields);
    const auto held = client();
    py::gil_scoped_release release;
    return std::make_unique<PyWriter>(held, held->open_submission(std::move(header)));
  }

  std::uint64_t watch(const std::vector<std::pair<std::string, IndexRanges>>& items) {
    std::vector<WatchRequest> requests;
    for (const auto& [submission, have] : items) {
      WatchRequest request;
      request.submission = parse_id<SubmissionId>(submission);
      request.have = to_ranges(have);
      requests.push_back(std::move(request));
    }
    WatchHandlers handlers;
    handlers.on_outcomes = [events = events_](OutcomeBatch batch) {
      events->push(std::move(batch));
    };
    handlers.on_progress = [events = events_](const SubmissionProgress& progress) {
      events->push(progress);
    };
    const auto held = client();
    py::gil_scoped_release release;
    return held->watch(std::move(requests), std::move(handlers));
  }

  void unwatch(std::uint64_t id) {
    const auto held = client();
    py::gil_scoped_release release;
    held->unwatch(id);
  }

  // A list of tuples, or None when the client was closed.
  py::object next_events(double timeout_s) {
    std::vector<Event> events;
    {
      py::gil_scoped_release release;
      events =
          events_->take(std::chrono::duration_cast<std::chrono::milliseconds>(seconds(timeout_s)));
    }
    if (events.empty() && events_->closed()) return py::none();
    py::list list;
    for (Event& event : events) {
      list.append(std::visit([](const auto& e) { return to_python(e); }, event));
      event = SubmissionProgress{};  // copied: its lease and bytes may go
    }
    return list;
  }

  void collected(const std::string& submission, const std::vector<std::uint32_t>& indices) {
    RangeSet ranges;
    for (const std::uint32_t index : indices) ranges.insert(index);
    const auto id = parse_id<SubmissionId>(submission);
    const auto held = client();
    py::gil_scoped_release release;
    held->collected(id, std::move(ranges));
  }

  void flush() {
    const auto held = client();
    check([&] {
      py::gil_scoped_release release;
      return held->flush();
    }());
  }

  std::tuple<std::uint64_t, std::uint64_t, std::uint64_t> cancel(
      const std::vector<std::string>& tasks, bool force) {
    std::vector<TaskId> ids;
    for (const std::string& task : tasks) ids.push_back(value_or_raise(TaskId::parse(task)));
    return counts(waiting([&](Client& c) { return c.cancel(ids, force); }));
  }
  std::tuple<std::uint64_t, std::uint64_t, std::uint64_t> cancel_group(const std::string& group,
                                                                       bool force) {
    return counts(waiting([&](Client& c) { return c.cancel_group(group, force); }));
  }

  void close() {
    events_->close();
    std::shared_ptr<Client> last = std::move(client_);
    client_.reset();
    // Its destructor waits for the I/O thread; a call that is still waiting keeps it a little
    // longer.
    py::gil_scoped_release release;
    last.reset();
  }

 private:
  std::shared_ptr<EventQueue> events_;
  std::shared_ptr<Client> client_;
};

py::dict decode_shell(const std::string& data) {
  const ShellResult result = value_or_raise(decode_shell_result(data));
  py::dict answer;
  answer["cmd"] = py::str(result.command);
  answer["stdout"] = py::bytes(result.out);
  answer["stderr"] = py::bytes(result.err);
  answer["returncode"] = result.returncode;
  answer["exception_name"] = result.exception_name;
  answer["truncated"] = result.truncated;
  return answer;
}

}  // namespace
}  // namespace farcall::python

PYBIND11_MODULE(_farcall, module) {
  using farcall::python::PyClient;
  module.doc() = "libfarcall; use the package farcall, which wraps it.";
  module.attr("__version__") = FARCALL_VERSION;
  module.def("decode_shell_result", &farcall::python::decode_shell);
  module.def("function_id",
             [](const std::string& kind, const std::string& name, const py::bytes& body) {
               const auto number = farcall::function_kind_from_name(kind);
               if (!number) throw py::value_error("unknown kind of function: " + kind);
               return farcall::function_id(*number, name, std::string(body)).string();
             });
  using farcall::python::PyWriter;
  py::class_<PyWriter>(module, "SubmissionWriter")
      .def_property_readonly("id", &PyWriter::id)
      .def("add", &PyWriter::add, py::arg("argument_sets"), py::arg("first") = 0)
      .def_property_readonly("added", &PyWriter::added)
      .def("seal", &PyWriter::seal)
      .def("wait_durable", &PyWriter::wait_durable, py::arg("timeout_s"));
  py::class_<PyClient>(module, "Client")
      .def(py::init<const std::string&, const std::string&, const std::string&, const std::string&,
                    double>(),
           py::arg("home"), py::arg("identity"), py::arg("relay"), py::arg("invitation"),
           py::arg("timeout_s"))
      .def("relay", &PyClient::relay)
      .def("call", &PyClient::call, py::arg("method"), py::arg("parameters"))
      .def("register_function", &PyClient::register_function, py::arg("kind"), py::arg("name"),
           py::arg("meta"), py::arg("body"))
      .def("store_bytes", &PyClient::store_bytes, py::arg("parts"))
      .def("store_file", &PyClient::store_file, py::arg("path"))
      .def("fetch_blob", &PyClient::fetch_blob, py::arg("task"), py::arg("hash"), py::arg("size"))
      .def("find_endpoint", &PyClient::find_endpoint)
      .def("new_submission_id", &PyClient::new_submission_id)
      .def("open_submission", &PyClient::open_submission)
      .def("watch", &PyClient::watch)
      .def("unwatch", &PyClient::unwatch)
      .def("next_events", &PyClient::next_events, py::arg("timeout_s"))
      .def("collected", &PyClient::collected)
      .def("flush", &PyClient::flush)
      .def("cancel", &PyClient::cancel, py::arg("tasks"), py::arg("force") = false)
      .def("cancel_group", &PyClient::cancel_group, py::arg("group"), py::arg("force") = false)
      .def("close", &PyClient::close);
}
