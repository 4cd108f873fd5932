// SHA-256 of bytes that arrive in pieces.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace lockstep::datasets {

// Move-only; a moved-from object may only be destroyed or assigned. One object belongs to one
// thread. Throws std::runtime_error when OpenSSL refuses (a build without SHA-256).
class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();

  void update(std::span<const std::byte> bytes);

  // 64 lower-case hexadecimal digits over everything so far; further updates may follow.
  std::string hex_digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lockstep::datasets
