//go:build linux || darwin

package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// A list has as many pages as it needs, and who asks for it leaves nothing behind that an owner's end
// would wait for.
func TestMaintainListsRepositories(t *testing.T) {
	const many = 1100 // more than a page of the store, or of the registry
	check := func(t *testing.T, dir string, want int) {
		t.Helper()
		got, err := maintain(t, dir).Repositories(t.Context())
		if err != nil || len(got) != want || !slices.IsSorted(got) {
			t.Errorf("got %d repositories, %v; want %d", len(got), err, want)
		}
	}
	dir := place(t)
	atRest(t, dir)
	check(t, dir, 0)
	for name, start := range owners {
		t.Run(name, func(t *testing.T) {
			dir := place(t)
			s := start(t, dir)
			check(t, dir, 0)
			for i := range many {
				if err := s.pushTo(t.Context(), fmt.Sprintf("app/%04d", i), "v1"); err != nil {
					t.Fatal(err)
				}
			}
			check(t, dir, many)
			if err := s.stop(); err != nil {
				t.Error(err)
			}
			check(t, dir, many)
		})
	}
}

func TestRepositoriesThatCannotBeListed(t *testing.T) {
	check := func(t *testing.T, dir string) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := maintain(t, dir).Repositories(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: got %v", err)
		}
	}
	check(t, place(t))
	eachOwner(t, func(s *served) {
		check(s.T, s.dir)
		m := maintain(s.T, s.dir)
		if err := s.stop(); err != nil {
			s.Error(err)
		}
		if got, err := m.Repositories(s.Context()); err == nil {
			s.Errorf("of an owner that has ended: got %q", got)
		}
	})
}
