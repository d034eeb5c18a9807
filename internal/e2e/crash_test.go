//go:build linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// sampled is how many of the earlier images are looked at after each crash.
const sampled = 5

// pushed is an image whose push was answered before a crash.
type pushed struct {
	repository, tag string
	root            digest.Digest
}

// What was answered before kill -9 is there after it: in the registry that comes up anew, and in the
// end in the directory.
func TestAServerThatIsKilledAfterAPush(t *testing.T) {
	s, rounds := newShell(t), 50
	if testing.Short() {
		rounds = 8
	}
	layout, random := s.path("layout"), s.random()
	var all []pushed
	server, address := s.serve(layout)
	var longest time.Duration
	for round := range rounds {
		one := s.crashImage(round)
		s.must("skopeo", s.copyTo(address, one)...)
		server.kill()
		all = append(all, one)
		begin := time.Now()
		server, address = s.serve(layout)
		longest = max(longest, time.Since(begin))
		s.complete(address, append(s.sample(random, all), one))
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	s.complete(address, all)
	server.stop()
	s.inDirectory(layout, all)
	t.Logf("%d rounds; the server was up again within %v", rounds, longest)
}

// What was being pushed when kill -9 came is there whole or not at all, and can be pushed again.
func TestAServerThatIsKilledDuringAPush(t *testing.T) {
	s, rounds := newShell(t), 15
	if testing.Short() {
		rounds = 4
	}
	layout, random := s.path("layout"), s.random()
	var all []pushed
	server, address := s.serve(layout)
	answered := 0
	for round := range rounds {
		tag := fmt.Sprint("round", round)
		one := pushed{"crash/during", tag, s.imageOf(s.path(tag), "v1", []int{3 << 20, 2 << 20, layerSize}).root}
		client := s.start("skopeo", s.copyTo(address, one)...)
		time.Sleep(time.Duration(random.IntN(70)) * time.Millisecond) // the moment of the crash
		server.kill()
		client.poll("the client's end", client.hasEnded)
		server, address = s.serve(layout)
		s.complete(address, s.sample(random, all))
		if client.cmd.ProcessState.Success() {
			answered++
			s.complete(address, []pushed{one})
		}
		s.wholeOrAbsent(address, one)
		s.must("skopeo", s.copyTo(address, one)...)
		s.complete(address, []pushed{one})
		all = append(all, one)
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	server.stop()
	s.inDirectory(layout, all)
	t.Logf("%d rounds, in %d of which the push was faster", rounds, answered)
}

// wholeOrAbsent looks at a tag whose push may have been cut off.
func (s *shell) wholeOrAbsent(address string, one pushed) {
	s.Helper()
	answer := s.fetch("http://" + address + "/v2/" + one.repository + "/manifests/" + one.tag)
	if !strings.Contains(string(answer), "_UNKNOWN") {
		s.complete(address, []pushed{one})
	}
}

// copyTo are the arguments that make skopeo push an image from its directory, which has its tag's
// name.
func (s *shell) copyTo(address string, one pushed) []string {
	return []string{"copy", "--dest-tls-verify=false", "oci:" + s.path(one.tag) + ":v1", "docker://" + address + "/" + one.repository + ":" + one.tag}
}

// inDirectory makes sure that skopeo reads all of these from a layout directory.
func (s *shell) inDirectory(layout string, all []pushed) {
	s.Helper()
	for _, one := range all {
		if got := s.skopeoDigest("oci:" + layout + ":" + one.repository + ":" + one.tag); got != string(one.root) {
			s.Errorf("skopeo reads %s:%s as %s in the directory, want %s", one.repository, one.tag, got, one.root)
		}
	}
}

// random is a generator whose seed a failure tells.
func (s *shell) random() *rand.Rand {
	s.Helper()
	seed := rand.Uint64()
	s.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// crashImage makes the image of one round, in one of three repositories.
func (s *shell) crashImage(round int) pushed {
	s.Helper()
	tag := fmt.Sprint("round", round)
	made := s.smallImage(s.path(tag), "v1", 1+round%3)
	return pushed{fmt.Sprint("crash/repo", round%3), tag, made.root}
}

// sample picks some.
func (s *shell) sample(random *rand.Rand, all []pushed) []pushed {
	var some []pushed
	for _, i := range random.Perm(len(all))[:min(sampled, len(all))] {
		some = append(some, all[i])
	}
	return some
}

// complete makes sure that a registry serves all of these, whole.
func (s *shell) complete(address string, all []pushed) {
	s.Helper()
	for _, one := range all {
		s.serves(address, one.repository, one.tag, one.root)
	}
}
