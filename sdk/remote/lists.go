package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
)

const (
	// maxList bounds the body of one page of a list, and what is gathered of several, in bytes.
	maxList = 32 << 20
	// maxEmpty is how many pages in a row may have nothing on them.
	maxEmpty = 100
	// maxPages bounds the pages of one list.
	maxPages = 1 << 16
)

// Tags lists the tags, following the registry's pages.
func (r *Repository) Tags(ctx context.Context, after string) iter.Seq2[string, error] {
	return r.tags(ctx, after, ocirequest.NoLimit)
}

func (r *Repository) tags(ctx context.Context, after string, n int) iter.Seq2[string, error] {
	req := ocirequest.Request{Kind: ocirequest.TagList, Last: after, N: n}
	return pages(ctx, exchange{request: req}, r.send, func(body []byte) ([]string, error) {
		var list struct {
			Tags []string `json:"tags"`
		}
		err := unmarshal(body, &list)
		return list.Tags, err
	})
}

// FirstTags lists tags as Tags does, and asks the registry for pages of n of them: for who wants to know of a few whether there are
// any.
func (r *Repository) FirstTags(ctx context.Context, n int) iter.Seq2[string, error] {
	return r.tags(ctx, "", n)
}

// Repositories lists the registry's catalog. There are registries that have an order of their own, in which their pages follow
// each other, too: so all of it is read before the first name is yielded.
func (r *Registry) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		names, err := r.catalog(ctx, maxList)
		if err != nil {
			yield("", err)
			return
		}
		for _, name := range names {
			if name > after && !yield(name, nil) {
				return
			}
		}
	}
}

// catalog is all of the catalog, in byte order. The names have so many bytes together, at most.
func (r *Registry) catalog(ctx context.Context, most int) ([]string, error) {
	var names []string
	size := 0
	req := ocirequest.Request{Kind: ocirequest.Catalog, N: ocirequest.NoLimit}
	for name, err := range pages(ctx, exchange{request: req}, r.send, readRepositories) {
		if err != nil {
			return nil, err
		}
		if size += len(name); size > most {
			return nil, fmt.Errorf("the names of the registry's repositories have more than %d bytes: %w", most, berth.ErrSizeInvalid)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func readRepositories(body []byte) ([]string, error) {
	var list struct {
		Repositories []string `json:"repositories"`
	}
	err := unmarshal(body, &list)
	return list.Repositories, err
}

// Referrers lists the referrers of a subject. From a registry that lacks the endpoint they are read
// from the tag that stands in for it ("Referrers Tag Schema").
func (r *Repository) Referrers(ctx context.Context, subject digest.Digest, opts *berth.ReferrersOptions) iter.Seq2[v1.Descriptor, error] {
	if opts == nil {
		opts = &berth.ReferrersOptions{}
	}
	return func(yield func(v1.Descriptor, error) bool) {
		if err := berth.ValidateDigest(subject); err != nil {
			yield(v1.Descriptor{}, err)
			return
		}
		req := ocirequest.Request{Kind: ocirequest.ReferrerList, Digest: subject,
			ArtifactType: opts.ArtifactType, Last: string(opts.After), N: ocirequest.NoLimit}
		for desc, err := range pages(ctx, exchange{request: req}, r.send, readReferrers) {
			var refused *Error
			if errors.As(err, &refused) && lacks(refused.Status) {
				r.registry.learnt.referrers.learn(false)
				r.fallbackReferrers(ctx, subject, opts, yield)
				return
			}
			if err == nil && !wanted(desc, opts) {
				continue
			}
			if !yield(desc, err) {
				return
			}
		}
	}
}

// lacks reports whether a status says that the registry has no such API.
func lacks(status int) bool {
	return status == http.StatusNotFound || status == http.StatusMethodNotAllowed || status == http.StatusNotImplemented
}

func wanted(desc v1.Descriptor, opts *berth.ReferrersOptions) bool {
	return (opts.ArtifactType == "" || desc.ArtifactType == opts.ArtifactType) && desc.Digest > opts.After
}

func readReferrers(body []byte) ([]v1.Descriptor, error) {
	var index v1.Index
	err := unmarshal(body, &index)
	return index.Manifests, err
}

func unmarshal(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("the list that the registry sent does not parse: %w", err)
	}
	return nil
}

type sender func(context.Context, exchange) (*http.Response, error)

// pages yields the entries of all pages of a list.
func pages[T any](ctx context.Context, e exchange, send sender, read func([]byte) ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		seen := map[string]bool{} // the addresses of the pages
		for empty := 0; ; {
			entries, next, err := onePage(ctx, e, send, read)
			if empty++; len(entries) > 0 {
				empty = 0
			}
			if err == nil && next != nil && empty == maxEmpty {
				err = fmt.Errorf("the registry has sent %d pages of a list with nothing on them: %w", empty, berth.ErrSizeInvalid)
			}
			if err == nil && next != nil && (seen[next.String()] || len(seen) == maxPages) {
				err = fmt.Errorf("the list that the registry sent has no end: after %d pages it leads to %s: %w", len(seen)+1, plainURL(next), berth.ErrSizeInvalid)
			}
			for _, entry := range entries {
				if !yield(entry, nil) {
					return
				}
			}
			if err != nil {
				yield(*new(T), err)
				return
			}
			if next == nil {
				return
			}
			seen[next.String()], e.location = true, next
		}
	}
}

// download sends a request that has no body and reads what it is answered, as far as the limit. An answer that breaks off is asked
// for again; if it does so too often, the response is there beside the error.
func download(ctx context.Context, e exchange, send sender, limit int64) (resp *http.Response, body []byte, err error) {
	for range maxBreaks {
		resp, err = send(ctx, e)
		if err != nil {
			return nil, nil, err
		}
		body, err = io.ReadAll(io.LimitReader(resp.Body, limit))
		resp.Body.Close()
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	return resp, body, err
}

func onePage[T any](ctx context.Context, e exchange, send sender, read func([]byte) ([]T, error)) ([]T, *url.URL, error) {
	resp, body, err := download(ctx, e, send, maxList+1)
	if err != nil {
		return nil, nil, err
	}
	if len(body) > maxList {
		return nil, nil, fmt.Errorf("the list that the registry sent has more than %d bytes: %w", maxList, berth.ErrSizeInvalid)
	}
	entries, err := read(body)
	if err != nil {
		return nil, nil, err
	}
	next, err := nextPage(resp)
	return entries, next, err
}

// nextPage finds the Link to the next page (RFC 8288). It must be on the same host: another one
// would be sent the credentials of this.
func nextPage(resp *http.Response) (*url.URL, error) {
	for _, value := range resp.Header.Values("Link") {
		target, params, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(value), "<"), ">")
		if !ok || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
			continue
		}
		next, err := resp.Request.URL.Parse(target)
		if err != nil {
			return nil, fmt.Errorf("the link to the next page does not parse: %w", err)
		}
		if next.Host != resp.Request.URL.Host || next.Scheme != resp.Request.URL.Scheme {
			return nil, fmt.Errorf("the link to the next page leads to %s, not followed: %w", next.Host, berth.ErrDenied)
		}
		return next, nil
	}
	return nil, nil
}
