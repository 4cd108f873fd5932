// Sends and receives that are under way.
//
// Refers to the buffers that it is given, which must live until the set is complete. If a wait is
// given up, MPI may still read and write them: whoever owns the buffers keeps them for good then
// (keep_forever). That is why destruction does nothing. Not thread-safe. Calls are local, but each
// message needs its counterpart. Starting allocates nothing up to the capacity.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "comm/detail/mpi.hpp"

namespace lockstep::comm::detail {

class Requests {
 public:
  // Makes room for `capacity` messages at once.
  void reserve(std::size_t capacity);

  // One message of at most longest_message bytes. Both throw CommError.
  void send(MPI_Comm comm, const void* data, std::size_t bytes, std::size_t to, int tag);
  void receive(MPI_Comm comm, void* data, std::size_t bytes, std::size_t from, int tag);

  // Drives them on. True if all are complete; then messages are checked for their length. Throws
  // CommError.
  bool test();

  // Forgets the completed messages, to start anew.
  void clear();

  std::size_t size() const { return requests_.size(); }
  bool outstanding() const { return outstanding_; }

  // The tag with which the i-th message, a receive, came; once all are complete.
  int tag(std::size_t i) const { return statuses_[i].MPI_TAG; }
  bool is_receive(std::size_t i) const { return messages_[i].is_receive; }

  // Whether the i-th message is complete. Drives nothing on.
  bool completed(std::size_t i) const;

  // The ranks that have not answered, for a message: "rank 3" or "ranks 1, 3".
  std::string missing() const;

 private:
  struct Message {
    std::size_t peer;
    std::size_t bytes;
    bool is_receive;
  };

  void started(MPI_Request request, Message message);

  std::vector<MPI_Request> requests_;
  std::vector<MPI_Status> statuses_;
  std::vector<Message> messages_;
  bool outstanding_ = false;
};

// "rank 3", "ranks 1, 3", or "ranks 1, … and 5 more"; `ranks` in any order and with repetitions.
std::string name_ranks(std::vector<std::size_t> ranks);

// Keeps an object alive until the process ends: for buffers that a given-up wait left to MPI.
void keep_forever(std::shared_ptr<void> object);

}  // namespace lockstep::comm::detail
