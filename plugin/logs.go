package plugin

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/plugin/internal/controlpb"
)

// LogHandler writes records in the form in which go-plugin's host side reads them, one JSON object
// a line: until a plugin's first lease, that is its log.
func LogHandler(w io.Writer, level slog.Level) slog.Handler {
	return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		switch {
		case len(groups) > 0:
		case a.Key == slog.TimeKey:
			return slog.String("@timestamp", a.Value.Time().Format("2006-01-02T15:04:05.000000Z07:00"))
		case a.Key == slog.LevelKey:
			return slog.String("@level", strings.ToLower(a.Value.String()))
		case a.Key == slog.MessageKey:
			a.Key = "@message"
		}
		return a
	}})
}

// HostLogger gives go-plugin's host side a logger that ends in an slog one. What the plugin logs
// comes through with its level and attributes; what go-plugin says of itself is for debugging.
func HostLogger(log *slog.Logger) hclog.Logger {
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Trace})
	logger.RegisterSink(sink{log})
	return logger
}

type sink struct{ log *slog.Logger }

func (s sink) Accept(name string, level hclog.Level, msg string, args ...any) {
	own := slog.LevelDebug
	if name != "" && msg != startFailure { // which is the host's error
		own = levels[level]
	}
	s.log.Log(context.Background(), own, msg, args...)
}

var levels = map[hclog.Level]slog.Level{
	hclog.Trace: slog.LevelDebug,
	hclog.Debug: slog.LevelDebug,
	hclog.Info:  slog.LevelInfo,
	hclog.Warn:  slog.LevelWarn,
	hclog.Error: slog.LevelError,
}

// maxRecords is how many records wait for a host that is slow to take them.
const maxRecords = 256

// records wait to be sent to a host. Nobody who logs waits for that: what has no room is counted.
type records struct {
	queue   chan *controlpb.LogRecord
	dropped atomic.Int64
}

func newRecords() *records { return &records{queue: make(chan *controlpb.LogRecord, maxRecords)} }

func (r *records) put(record *controlpb.LogRecord) {
	record.Dropped = r.dropped.Swap(0)
	select {
	case r.queue <- record:
	default:
		r.dropped.Add(record.Dropped + 1)
	}
}

// logger returns a logger whose records are sent.
func (r *records) logger(level slog.Level, access bool) *slog.Logger {
	return slog.New(&sender{records: r, level: level, access: access})
}

// sender is the handler of such a logger.
type sender struct {
	records *records
	level   slog.Level
	access  bool
	prefix  string // of the keys: the groups, each with a dot behind it
	with    []*controlpb.LogAttribute
}

func (s *sender) Enabled(_ context.Context, level slog.Level) bool { return level >= s.level }

func (s *sender) Handle(_ context.Context, r slog.Record) error {
	record := &controlpb.LogRecord{TimeNs: r.Time.UnixNano(), Level: int64(r.Level), Message: text(r.Message), Access: s.access}
	record.Attributes = append(record.Attributes, s.with...)
	r.Attrs(func(a slog.Attr) bool {
		record.Attributes = appendAttr(record.Attributes, s.prefix, a)
		return true
	})
	s.records.put(record)
	return nil
}

func (s *sender) WithAttrs(attrs []slog.Attr) slog.Handler {
	t := *s
	t.with = append([]*controlpb.LogAttribute(nil), s.with...)
	for _, a := range attrs {
		t.with = appendAttr(t.with, s.prefix, a)
	}
	return &t
}

func (s *sender) WithGroup(name string) slog.Handler {
	t := *s
	t.prefix += name + "."
	return &t
}

// appendAttr appends an attribute, a group as one for each of its members.
func appendAttr(to []*controlpb.LogAttribute, prefix string, a slog.Attr) []*controlpb.LogAttribute {
	value := a.Value.Resolve()
	p := &controlpb.LogAttribute{Key: text(prefix + a.Key)}
	switch value.Kind() {
	case slog.KindGroup:
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range value.Group() {
			to = appendAttr(to, prefix, member)
		}
		return to
	case slog.KindInt64:
		p.Value = &controlpb.LogAttribute_Number{Number: value.Int64()}
	case slog.KindFloat64:
		p.Value = &controlpb.LogAttribute_Fraction{Fraction: value.Float64()}
	default:
		p.Value = &controlpb.LogAttribute_Text{Text: text(value.String())}
	}
	return append(to, p)
}

// tell gives a record that has come to the host's logger that it is for.
func (o *LeaseOptions) tell(r *controlpb.LogRecord) {
	to := o.Logger
	if r.GetAccess() {
		to = o.AccessLog
	}
	if to == nil {
		return
	}
	if n := r.GetDropped(); n > 0 {
		to.Warn("records of the registry's log were left out", "count", n)
	}
	level := slog.Level(r.GetLevel())
	if !to.Enabled(context.Background(), level) {
		return
	}
	record := slog.NewRecord(time.Unix(0, r.GetTimeNs()), level, r.GetMessage(), 0)
	for _, a := range r.GetAttributes() {
		record.AddAttrs(attrFromProto(a))
	}
	to.Handler().Handle(context.Background(), record)
}

func attrFromProto(a *controlpb.LogAttribute) slog.Attr {
	switch v := a.GetValue().(type) {
	case *controlpb.LogAttribute_Number:
		return slog.Int64(a.GetKey(), v.Number)
	case *controlpb.LogAttribute_Fraction:
		return slog.Float64(a.GetKey(), v.Fraction)
	}
	return slog.String(a.GetKey(), a.GetText())
}

// logLevel is the least level that a logger takes.
func logLevel(log *slog.Logger) slog.Level {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn} {
		if log.Enabled(context.Background(), level) {
			return level
		}
	}
	return slog.LevelError
}

// FailStart logs why a plugin cannot start, with the code of that error, so that [StartError] finds it.
func FailStart(log *slog.Logger, err error) {
	log.Error(startFailure, "error", err, "code", berth.Code(err))
}

const startFailure = "cannot start"
