package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/berthoci/berth/ocilayout"
)

// settings are the flags that both commands have.
type settings struct {
	seed       uint64
	durability string
	dir        string
}

func (s *settings) flags(f *flag.FlagSet) {
	f.Uint64Var(&s.seed, "seed", 0, "what is random begins with it; 0 chooses one")
	f.StringVar(&s.durability, "durability", "both", "both, process or power; both takes them in turn")
	f.StringVar(&s.dir, "dir", "", "where to work; empty: in a new directory for temporary files")
}

// parse reads the flags of a command. The program takes no other arguments.
func (s *settings) parse(f *flag.FlagSet, args []string) error {
	s.flags(f)
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%s takes flags only, not %q", f.Name(), f.Arg(0))
	}
	if s.seed == 0 {
		s.seed = rand.Uint64N(1e9) + 1
	}
	if s.durability == "both" {
		return nil
	}
	_, err := ocilayout.ParseDurability(s.durability)
	return err
}

// durabilityOf is that of the n-th child.
func (s *settings) durabilityOf(n int) string {
	switch {
	case s.durability != "both":
		return s.durability
	case n%2 == 0:
		return ocilayout.Process.String()
	}
	return ocilayout.Power.String()
}

// makeDir makes a directory to work in, and returns what removes it.
func (s *settings) makeDir(name string) (dir string, remove func() error, err error) {
	if s.dir != "" {
		if err := os.MkdirAll(s.dir, 0o755); err != nil {
			return "", nil, err
		}
	}
	dir, err = os.MkdirTemp(s.dir, "berth-"+name+"-")
	return dir, func() error { return os.RemoveAll(dir) }, err
}

// random is a generator for one use in one round.
func (s *settings) random(use string, round int) *rand.Rand {
	stream := uint64(round) << 8
	for _, b := range []byte(strings.ToLower(use)) {
		stream = stream*31 + uint64(b)
	}
	return rand.New(rand.NewPCG(s.seed, stream))
}
