package main

import (
	"errors"
	"log/slog"
	"slices"
	"testing"
)

func TestWarnings(t *testing.T) {
	var told []string
	log := slog.New(newWarnings(func(line string) { told = append(told, line) }))
	log.Debug("a detail")
	log.Info("an entry is left as it is")
	log.Warn("blob cannot be served", "repository", "app", "digest", "sha256:1")
	log.With("repository", "app").Warn("manifest cannot be served")
	if len(told) > 0 {
		t.Errorf("what is not for the user, or told by the command itself, is told: %q", told)
	}
	for range 2 {
		log.Warn("the index is made anew")
		log.Error("the index is damaged", "timestamp", "now", "err", errors.New("no\nheader"), "copy", "/aside")
	}
	log.WithGroup("store").With("count", 2, "a", "b").Warn("others")
	want := []string{"the index is made anew", "the index is damaged: no header (copy /aside)", "others (a b, count 2)"}
	if !slices.Equal(told, want) {
		t.Errorf("got %q, want %q", told, want)
	}
}
