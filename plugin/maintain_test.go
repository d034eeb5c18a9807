package plugin

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/plugin/internal/controlpb"
)

// fakeUpkeep is what a fake controller answers, and was asked.
type fakeUpkeep struct {
	gc      berth.GCReport
	fsck    berth.FsckReport
	gcErr   error
	hangs   chan struct{} // closed when a collection hangs; nil: it does not
	askedGC *berth.GCOptions
	asked   *berth.FsckOptions
}

func (f *fake) GC(ctx context.Context, opts *berth.GCOptions) (berth.GCReport, error) {
	f.upkeep.askedGC = opts
	if f.upkeep.hangs != nil {
		close(f.upkeep.hangs)
		<-ctx.Done()
		return f.upkeep.gc, ctx.Err()
	}
	return f.upkeep.gc, errors.Join(f.err, f.upkeep.gcErr)
}

func (f *fake) Fsck(_ context.Context, opts *berth.FsckOptions) (berth.FsckReport, error) {
	f.upkeep.asked = opts
	return f.upkeep.fsck, f.err
}

func (f *fake) Checkout(context.Context) (func(context.Context) error, error) {
	if f.err != nil {
		return nil, f.err
	}
	return f.checkout.done, nil
}

type fakeCheckout struct {
	result error
	ctxErr error
	ended  chan struct{} // closed when the checkout has ended
}

func (c *fakeCheckout) done(ctx context.Context) error {
	c.ctxErr = ctx.Err()
	close(c.ended)
	return c.result
}

var fullGC = berth.GCReport{
	DryRun:    true,
	Tags:      []berth.Removal{{Repository: "app/a", Tag: "v1", Digest: digest.FromString("a"), Reason: "not among the newest 5"}},
	Manifests: []berth.Removal{{Repository: "app/b", Digest: digest.FromString("b"), Reason: "untagged"}, {Repository: "c"}},
	Blobs:     1, Bytes: 1 << 40, Spared: 3, SparedBytes: 4, Left: 5, LeftBytes: 6,
}

var fullFsck = berth.FsckReport{
	Blobs: 1, Bytes: 1 << 40, Manifests: 3, Tags: 4, Sparse: 5, Unknown: 6,
	Problems: []berth.Problem{
		{Kind: berth.ProblemDamaged, Digest: digest.FromString("a"), References: []string{"app/a:v1", "app/b:v1"}, Detail: "its file is damaged", Repaired: true},
		{Kind: berth.ProblemIndex, Detail: "page 7"},
	},
}

// A field that is added to the root's types and not to the converters shows here.
func TestEveryFieldIsTried(t *testing.T) {
	for _, v := range []any{fullGC, fullGC.Tags[0], fullFsck, fullFsck.Problems[0], fullOptions, fullOptions.Keep[0]} {
		value := reflect.ValueOf(v)
		for i := range value.NumField() {
			if value.Field(i).IsZero() {
				t.Errorf("%T.%s is zero", v, value.Type().Field(i).Name)
			}
		}
	}
}

var fullOptions = berth.GCOptions{
	DryRun: true, Grace: -1, UntaggedAfter: time.Hour, MaxBytes: 1 << 40,
	Keep: []berth.KeepRule{{Repositories: "app/**", Newest: 5}, {Repositories: "*", Newest: 1}},
}

func TestReportsCross(t *testing.T) {
	f := newFake()
	f.upkeep.gc, f.upkeep.fsck = fullGC, fullFsck
	c := connect(t, f)
	gc, err := c.GC(t.Context(), &fullOptions)
	if err != nil || !reflect.DeepEqual(gc, fullGC) || !reflect.DeepEqual(*f.upkeep.askedGC, fullOptions) {
		t.Errorf("gc: got %+v, %v, asked %+v", gc, err, f.upkeep.askedGC)
	}
	fsck, err := c.Fsck(t.Context(), &berth.FsckOptions{Repair: true})
	if err != nil || !reflect.DeepEqual(fsck, fullFsck) || !f.upkeep.asked.Repair {
		t.Errorf("fsck: got %+v, %v, asked %+v", fsck, err, f.upkeep.asked)
	}
	f.upkeep.gc, f.upkeep.fsck = berth.GCReport{}, berth.FsckReport{}
	gc, err = c.GC(t.Context(), nil)
	if err != nil || !reflect.DeepEqual(gc, berth.GCReport{}) || !reflect.DeepEqual(*f.upkeep.askedGC, berth.GCOptions{}) {
		t.Errorf("gc without options: got %+v, %v, asked %+v", gc, err, f.upkeep.askedGC)
	}
	if fsck, err = c.Fsck(t.Context(), nil); err != nil || !reflect.DeepEqual(fsck, berth.FsckReport{}) || f.upkeep.asked.Repair {
		t.Errorf("fsck without options: got %+v, %v, asked %+v", fsck, err, f.upkeep.asked)
	}
}

// However long a report is, no message is.
func TestLongReportsCross(t *testing.T) {
	f := newFake()
	for i := range 100_000 {
		f.upkeep.gc.Tags = append(f.upkeep.gc.Tags, berth.Removal{Repository: "app/a", Tag: fmt.Sprint("v", i), Digest: digest.FromString(fmt.Sprint(i)), Reason: "not among the newest 5"})
	}
	crowd := berth.Problem{Kind: berth.ProblemMissing}
	for i := range 50_000 {
		crowd.References = append(crowd.References, fmt.Sprint("app/a:a-tag-with-a-name-that-is-not-short-at-all-", i))
	}
	f.upkeep.fsck.Problems = []berth.Problem{crowd}
	c := connect(t, f)
	if gc, err := c.GC(t.Context(), nil); err != nil || !reflect.DeepEqual(gc, f.upkeep.gc) {
		t.Errorf("gc: %d removals, %v", len(gc.Tags), err)
	}
	if fsck, err := c.Fsck(t.Context(), nil); err != nil || !reflect.DeepEqual(fsck, f.upkeep.fsck) {
		t.Errorf("fsck: %d problems, %v", len(fsck.Problems), err)
	}
}

func TestTextThatIsNotUTF8Crosses(t *testing.T) {
	f := newFake()
	f.upkeep.fsck.Problems = []berth.Problem{{Detail: "open /\xff"}}
	c := connect(t, f)
	if got, err := c.Fsck(t.Context(), nil); err != nil || got.Problems[0].Detail != "open /\uFFFD" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// What was removed stays removed, so it is told though the collection failed.
func TestACollectionThatFailsTellsWhatItDid(t *testing.T) {
	f := newFake()
	f.upkeep.gc, f.upkeep.gcErr = fullGC, fmt.Errorf("remove: %w", berth.ErrDenied)
	c := connect(t, f)
	if got, err := c.GC(t.Context(), nil); !errors.Is(err, berth.ErrDenied) || !reflect.DeepEqual(got, fullGC) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestACollectionThatIsCancelledTellsWhatItDid(t *testing.T) {
	f := newFake()
	f.upkeep.gc, f.upkeep.hangs = fullGC, make(chan struct{})
	c := connect(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-f.upkeep.hangs
		cancel()
	}()
	if got, err := c.GC(ctx, nil); !errors.Is(err, context.Canceled) || !reflect.DeepEqual(got, fullGC) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := c.GC(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a call that comes too late: got %v", err)
	}
}

func TestACheckoutEndsWithItsResult(t *testing.T) {
	for _, result := range []error{nil, fmt.Errorf("index.json: %w", berth.ErrLayoutInvalid)} {
		f := newFake()
		f.checkout.result = result
		c := connect(t, f)
		ctx, cancel := context.WithCancel(t.Context())
		done, err := c.Checkout(ctx)
		if err != nil {
			t.Fatal(err)
		}
		cancel() // is over with the call
		select {
		case <-f.checkout.ended:
			t.Fatal("it ended by itself")
		default:
		}
		for range 2 {
			if err := done(t.Context()); fmt.Sprint(err) != fmt.Sprint(result) || berth.Code(err) != berth.Code(result) {
				t.Errorf("got %v, want %v", err, result)
			}
		}
		wait(t, f.checkout.ended, "the checkout")
	}
}

// Whichever way a client goes, what it did to the directory is taken in, and not with a context that
// has ended.
func TestACheckoutEndsWithItsClient(t *testing.T) {
	for way, leave := range map[string]func(done func(context.Context) error, conn *Connection){
		"it dies": func(_ func(context.Context) error, c *Connection) { c.Close() },
		"it does not wait": func(done func(context.Context) error, _ *Connection) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if err := done(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		},
	} {
		t.Run(way, func(t *testing.T) {
			f := newFake()
			c := connect(t, f)
			done, err := c.Checkout(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			leave(done, c)
			wait(t, f.checkout.ended, "the checkout")
			if f.checkout.ctxErr != nil {
				t.Errorf("it ended with %v", f.checkout.ctxErr)
			}
		})
	}
}

func TestAnOlderPluginIsToldAsSuch(t *testing.T) {
	err := fromStatus(t.Context(), status.Error(codes.Unimplemented, "unknown method GC"))
	if !errors.Is(err, berth.ErrUnsupported) || !strings.Contains(err.Error(), "earlier version") {
		t.Errorf("got %v", err)
	}
}

func TestAReportThatDoesNotComeWhole(t *testing.T) {
	pieces := []*controlpb.GCEvent{{Piece: []byte{0x08}}, {Piece: []byte{0xff}, Last: true}}
	for n, wants := range map[int]string{1: "unexpected EOF", 2: "proto"} {
		next := 0
		var report controlpb.GCReport
		err := receiveReport(func() (*controlpb.GCEvent, error) {
			if next++; next > n {
				return nil, errors.New("unexpected EOF")
			}
			return pieces[next-1], nil
		}, &report)
		if err == nil || !strings.Contains(err.Error(), wants) {
			t.Errorf("%d pieces: got %v", n, err)
		}
	}
}
