// Package e2e drives berth as people do: real programs, one against the other, over loopback and
// through directories. It holds tests alone, and it is a module of its own, so that what the tests
// need is no dependency of berth.
//
//	cd internal/e2e && go test -count=1 ./...          all of it
//	cd internal/e2e && go test -count=1 -short ./...   the same tests with fewer rounds
//
// -count=1 because go test does not know that berth itself is an input, and would repeat an old
// result.
//
// skopeo, umoci and script must be installed, the Debian packages skopeo, umoci and bsdutils: a test
// that lacks one fails. crane, regctl and the distribution registry are built from the tool lines of
// this module's go.mod, and berth from the tree that it lies in. Nothing but loopback is spoken to.
package e2e
