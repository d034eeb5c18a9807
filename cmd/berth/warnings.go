package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// warnings is an [slog.Handler] that tells, in one line each and once, what happened to the layout as a
// whole: that its index was lost and made anew, say. What concerns one repository or one request is told by the
// command that cannot do what it was asked for: this one, or another one that shares the layout.
type warnings struct {
	tell  func(line string)
	told  *sync.Map // the lines
	attrs []slog.Attr
}

func newWarnings(tell func(line string)) *warnings {
	return &warnings{tell: tell, told: &sync.Map{}}
}

// Enabled implements [slog.Handler].
func (w *warnings) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle implements [slog.Handler].
func (w *warnings) Handle(_ context.Context, r slog.Record) error {
	attrs := map[string]string{}
	note := func(a slog.Attr) bool {
		attrs[a.Key] = a.Value.Resolve().String()
		return true
	}
	for _, a := range w.attrs {
		note(a)
	}
	r.Attrs(note)
	if attrs["repository"] != "" || attrs["path"] != "" {
		return nil
	}
	line := inWords(r.Message, attrs)
	if _, before := w.told.LoadOrStore(line, true); !before {
		w.tell(line)
	}
	return nil
}

// inWords is a record as people read it. A plugin's record has its time as an attribute.
func inWords(message string, attrs map[string]string) string {
	line := message
	if err := attrs["err"]; err != "" {
		line += ": " + err
	}
	var others []string
	for key, value := range attrs {
		if key != "err" && key != "timestamp" {
			others = append(others, key+" "+value)
		}
	}
	if slices.Sort(others); len(others) > 0 {
		line += fmt.Sprintf(" (%s)", strings.Join(others, ", "))
	}
	return strings.Join(strings.Fields(line), " ")
}

// WithAttrs implements [slog.Handler].
func (w *warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	more := *w
	more.attrs = slices.Concat(w.attrs, attrs)
	return &more
}

// WithGroup implements [slog.Handler]: people do without.
func (w *warnings) WithGroup(string) slog.Handler { return w }
