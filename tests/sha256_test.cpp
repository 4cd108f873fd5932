#include "datasets/sha256.hpp"

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <utility>

namespace lockstep::datasets {
namespace {

std::span<const std::byte> bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// FIPS 180-4 examples, https://csrc.nist.gov/projects/cryptographic-standards-and-guidelines
TEST(Sha256, AgreesWithThePublishedExamples) {
  EXPECT_EQ(Sha256().hex_digest(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  Sha256 abc;
  abc.update(bytes("abc"));
  EXPECT_EQ(abc.hex_digest(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Sha256 million;
  million.update(bytes(std::string(1000000, 'a')));
  EXPECT_EQ(million.hex_digest(),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, DependsOnTheBytesAndNotOnThePieces) {
  const std::string text(1000, 'x');
  Sha256 whole;
  whole.update(bytes(text));
  for (const std::size_t piece : {1u, 7u, 64u, 999u}) {
    Sha256 pieces;
    for (std::size_t at = 0; at < text.size(); at += piece) {
      pieces.update(bytes(text.substr(at, piece)));
    }
    EXPECT_EQ(pieces.hex_digest(), whole.hex_digest()) << piece;
  }
}

TEST(Sha256, GoesOnAfterADigestWasTaken) {
  Sha256 sha;
  sha.update(bytes("ab"));
  const std::string early = sha.hex_digest();
  EXPECT_EQ(sha.hex_digest(), early);
  Sha256 moved = std::move(sha);
  moved.update(bytes("c"));
  EXPECT_EQ(moved.hex_digest(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace lockstep::datasets
